"""What a smaller corpus costs in repetition: a selected set of U tokens that is trained on for T (arXiv 2305.16264).

The law knows how much text there is, not how good it is. It says what repeating costs; whether the selection is worth more than
that is for an experiment to show.
"""

import dataclasses
import math

from cptjax.scaling.data_constrained import DataConstrained, worth

# Muennighoff et al. 2023, table of the fit: A, B, E from a, b, e; alpha = beta.
PUBLISHED = {
    "E": math.exp(0.6254804),
    "A": math.exp(6.255414),
    "B": math.exp(7.3049974),
    "alpha": 0.3526596,
    "beta": 0.3526596,
    "R_D": 15.387756,
    "R_N": 5.309743,
}
SHARES = (1.0, 0.8, 0.6, 0.4, 0.25, 0.2, 0.1, 0.05)
FREE_EPOCHS = 4  # up to so many repeating is almost free, the paper says
FITTED = (7e6, 9e9)  # parameters of the models that the published law was fitted on
FITTED_TOKENS = 1e8  # the fewest unique tokens of them, as remembered; not verified


@dataclasses.dataclass(frozen=True)
class Repetition:
    """A set of `unique` tokens that is trained on for `trained`.

    Attributes:
        share: of the source. epochs: exposures of each token. worth: what the trained tokens are worth in tokens of text that is
            all new. loss: what repeating costs in nats per token, at the size that was asked about; None without one.
    """

    share: float
    unique: int
    trained: int
    epochs: float
    worth: float
    loss: float | None


def repetition(
    unique: float, trained: float, source: float, params: float | None = None, law: dict[str, float] = PUBLISHED
) -> Repetition:
    """What it comes to when `unique` of `source` tokens are trained on for `trained`.

    Args:
        params: of the model, for the loss, which is given where the published law was fitted.
        law: parameters of the data-constrained law, a fit's or the published ones.
    """
    fewer = min(unique, trained)  # what is not read is no loss
    value = float(worth(float(trained), float(max(1.0, fewer)), math.log(law["R_D"])))
    loss = None
    if params is not None and FITTED[0] <= params <= FITTED[1]:
        columns = {"params": float(params), "tokens": float(trained)}
        once, again = (
            float(DataConstrained().predict(law, {**columns, "unique_tokens": float(most)}))
            for most in (trained, max(1.0, fewer))
        )
        loss = again - once
    return Repetition(unique / max(1.0, source), int(unique), int(trained), trained / max(1.0, unique), value, loss)


def sweep(trained: float, source: float, params: float | None = None, law: dict[str, float] = PUBLISHED):
    """`repetition` at each of SHARES of the source: the regime of fixed data."""
    return [repetition(share * source, trained, source, params, law) for share in SHARES]


def advice(selected: Repetition, what: str = "selected tokens") -> list[str]:
    """Sentences on a set of tokens, and on the smallest that is repeated little enough. what: they are called."""
    said = [
        f"{selected.unique:,} {what} trained on for {selected.trained:,}: {selected.epochs:.3g} epochs, worth "
        f"{selected.worth / max(1, selected.trained):.1%} of as many tokens of new text by the data-constrained law"
    ]
    if selected.loss is not None:
        beyond = "" if selected.unique >= FITTED_TOKENS else ", which has seen no set as small: an extrapolation"
        said.append(f"repeating costs {selected.loss:.4f} nats per token at this size, by the published fit{beyond}")
    if selected.epochs > FREE_EPOCHS:
        least = math.ceil(selected.trained / FREE_EPOCHS)
        said.append(
            f"more than {FREE_EPOCHS} epochs: repeating is no longer almost free. {least:,} tokens would be read "
            f"{FREE_EPOCHS} times: keep more, or train for less"
        )
    elif selected.epochs < 1:
        said.append("less than one epoch: part of them is never read; a smaller share could be choosier")
    return said
