"""The questions that `advise` answers: which fits each takes, how it is decided, and what no law can know about it."""

import dataclasses
from collections.abc import Callable, Mapping

from cptjax.scaling.allocation import best_size
from cptjax.scaling.decisions import Domain, Values, continue_or_start, epochs_for, replay_for, split_tokens

_GAIN = "gain over a new model of the best size"


@dataclasses.dataclass(frozen=True)
class Situation:
    """What there is.

    Attributes:
        params: of the checkpoint.
        compute: FLOPs, 6 N D.
        text_tokens: unique tokens of the new text, or None where nobody said.
        prior_tokens: that the checkpoint was trained on, or None.
        forgetting_limit: nats by which the general loss may rise.
    """

    params: float
    compute: float
    text_tokens: float | None
    prior_tokens: float | None
    forgetting_limit: float

    @property
    def tokens(self) -> float:
        """That the checkpoint can be trained on with the budget."""
        return self.compute / 6 / self.params

    @property
    def known(self) -> dict[str, float]:
        """Columns that laws may read besides params and tokens."""
        return {} if self.prior_tokens is None else {"prior_tokens": self.prior_tokens}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        takes: the fits that it needs, by the name that `advise` gives them.
        needs: what must be known of the situation.
        decide: (situation, laws by name) -> numbers by name.
        says: (situation, those numbers, their intervals) -> a sentence.
        cannot_know: what the law leaves out.
    """

    question: str
    takes: tuple[str, ...]
    needs: tuple[str, ...]
    decide: Callable[[Situation, Mapping[str, Values]], dict[str, float]]
    says: Callable[[Situation, Mapping[str, float], Mapping[str, list]], str]
    cannot_know: str

    def uses(self, fit: str) -> bool:
        """Whether a fit is one of those that it needs."""
        return any(fit == name or fit.startswith(f"{name} ") for name in self.takes)

    def lacking(self, situation: Situation, fits: Mapping[str, object]) -> str:
        """What is not there, in words; empty where everything is."""
        missing = [f"{name.upper()}_FIT" for name in self.takes if not any(fit.split(" ")[0] == name for fit in fits)]
        missing = ["SPLIT_FITS" if name == "SPLIT_FIT" else name for name in missing]
        missing += [name.upper() for name in self.needs if getattr(situation, name) is None]
        return f"it takes {', '.join(missing)}." if missing else ""


def _continue(situation: Situation, laws: Mapping[str, Values]) -> dict[str, float]:
    found = continue_or_start(
        laws["continued"], laws["scratch"], situation.params, situation.compute, **situation.known
    )
    return {
        "loss if continued": found.continued,
        "loss of a new model of this size": found.afresh,
        "loss of a new model of the best size": found.afresh_any_size,
        _GAIN: found.afresh_any_size - found.continued,
        "best size for a new model": found.best.params,
        "FLOPs from which on a new model is as good": found.break_even,
        "share of FLOPs saved": found.saved,
    }


def _says_continue(situation: Situation, found: Mapping[str, float], intervals: Mapping[str, list]) -> str:
    low, high = intervals.get(_GAIN) or (found[_GAIN], found[_GAIN])
    undecided = low is not None and high is not None and low < 0 < high
    what = "Continue this checkpoint" if found[_GAIN] > 0 else "Start afresh"
    return (
        f"{'Undecided by these runs' if undecided else what}: {found['loss if continued']:.3f} nats after "
        f"{situation.tokens:,.0f} tokens, against {found['loss of a new model of the best size']:.3f} for a new model of "
        f"{found['best size for a new model']:.3g} parameters with the same FLOPs."
    )


def _size(situation: Situation, laws: Mapping[str, Values]) -> dict[str, float]:
    law = laws["continued"]
    found = best_size(law.law, law.params, situation.compute, situation.known)
    return {"parameters": found.params, "tokens": found.tokens}


def _epochs(situation: Situation, laws: Mapping[str, Values]) -> dict[str, float]:
    here = epochs_for(laws["epochs"], situation.text_tokens, situation.compute, situation.params)
    best = epochs_for(laws["epochs"], situation.text_tokens, situation.compute)
    return {
        "epochs with the budget": here.epochs,
        "worth in new tokens": here.worth,
        "share of the budget that still helps": here.worth / here.tokens,
        "best size for this text and budget": best.params,
        "its epochs": best.epochs,
    }


def _replay(situation: Situation, laws: Mapping[str, Values]) -> dict[str, float]:
    return {
        "share of general text": replay_for(
            laws["forgetting"], situation.params, situation.tokens, situation.forgetting_limit
        )
    }


def _split(situation: Situation, laws: Mapping[str, Values]) -> dict[str, float]:
    names = [name.removeprefix("split ") for name in laws]
    domains = [Domain(values) for values in laws.values()]
    together = split_tokens(domains, situation.params, situation.tokens)
    apart = split_tokens(domains, situation.params, situation.tokens, shared=False)
    shared = dict(zip((f"tokens of {name}" for name in names), together.domains, strict=True))
    return {
        "general tokens of one trunk": together.general,
        **shared,
        "mean loss": together.loss,
        "general tokens of each where they are independent": apart.general,
        "mean loss where they are independent": apart.loss,
    }


ANSWERS = (
    Asked(
        "Continue this checkpoint, or start afresh?",
        ("continued", "scratch"),
        (),
        _continue,
        _says_continue,
        "a base that was trained on more or less, or on other text, than those of the fit; what a better tokenizer would bring.",
    ),
    Asked(
        "Which size is best continued with this budget?",
        ("continued",),
        (),
        _size,
        lambda situation, found, intervals: (
            f"{found['parameters']:.3g} parameters on {found['tokens']:.3g} tokens, if there were a checkpoint of every size; "
            f"yours has {situation.params:.3g}."
        ),
        "what the model costs to serve; bases of other sizes that were trained longer.",
    ),
    Asked(
        "How often should the text be read?",
        ("epochs",),
        ("text_tokens",),
        _epochs,
        lambda situation, found, intervals: (
            f"The budget reads the text {found['epochs with the budget']:.3g} times, which is worth "
            f"{found['share of the budget that still helps']:.0%} of as many new tokens."
        ),
        "text whose documents repeat each other; text that the base has read already; regularisation.",
    ),
    Asked(
        "How much general text should be replayed?",
        ("forgetting",),
        (),
        _replay,
        lambda situation, found, intervals: (
            f"{found['share of general text']:.2%} of the tokens keep the general loss within {situation.forgetting_limit:g} nats."
        ),
        "abilities that no loss on general text shows; general text unlike that of the fit.",
    ),
    Asked(
        "How should tokens be split between general training and the domains?",
        ("split",),
        (),
        _split,
        lambda situation, found, intervals: (
            f"{found['general tokens of one trunk']:.3g} general tokens of one trunk, the rest in the branches: "
            f"{found['mean loss']:.4f} nats on average, {found['mean loss where they are independent']:.4f} without a shared trunk."
        ),
        "how much of each domain's text there is; domains that help each other.",
    ),
)
