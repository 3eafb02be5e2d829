"""A Hugging Face folder read by us and by `transformers`, compared on a text: what a conversion is checked by."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.data.sources import Where, documents, find_source
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, logits
from cptjax.models.numerics import Numerics
from cptjax.watching import Watch, unwatched

# Nats. In float32 tiny models agree to 1e-5, and rounding grows with depth and with how improbable a token is; what
# is read or computed wrongly is off by tenths.
MOST = 0.01


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far two models' next-token distributions are apart.

    Attributes:
        tokens: the positions that were compared, each over the whole vocabulary.
        largest: the largest difference of a log-probability, nats.
        kl: the mean of KL(theirs || ours), nats per token.
    """

    tokens: int
    largest: float
    kl: float


def first_rows(text: Where, tokenizer: Tokenizer, rows: int, length: int) -> list[list[int]]:
    """The first `rows` times `length` tokens of a source, documents one after another; the last row may be shorter.

    Raises:
        ConfigurationError: the source is none, or has fewer than two tokens.
    """

    def ids() -> Iterator[int]:
        for document in documents(find_source("text", text), tokenizer):
            yield from ([] if tokenizer.start is None else [tokenizer.start])
            yield from tokenizer.encode(document.text)

    stream = ids()
    found = [list(itertools.islice(stream, length)) for _ in range(rows)]
    found = [row for row in found if len(row) > 1]
    if not found:
        raise ConfigurationError(f"CHECK: {text!r} has no text to compare the models on.")
    return found


def compare(
    params: Params,
    config: DecoderConfig,
    mesh: Mesh,
    folder: epath.PathLike,
    rows: Sequence[Sequence[int]],
    watch: Watch = unwatched,
) -> Agreement:
    """Our log-probabilities of the next token, from `params`, against those of the folder loaded by transformers.

    Both in float32, a row at a time; transformers holds the model a second time, in this host's memory.

    Raises:
        ConfigurationError: torch or transformers is not installed, or there are several processes.
        CptjaxError: transformers cannot load the folder.
    """
    theirs = _their_model(folder)
    place = NamedSharding(mesh, PartitionSpec())

    @jax.jit
    def log_probabilities(params: Params, ids: jax.Array) -> jax.Array:
        scores = logits(params, config, Numerics(), ids, jnp.arange(ids.shape[1])[None], jnp.ones_like(ids))
        return jax.nn.log_softmax(scores[0])

    count, largest, kl = 0, 0.0, 0.0
    with jax.set_mesh(mesh):
        for row in watch(rows, len(rows), "comparing rows"):
            ours = np.asarray(log_probabilities(params, jax.device_put(np.asarray([row], np.int32), place)))
            expected = theirs(row)
            if expected.shape != ours.shape:
                raise CptjaxError(
                    f"{folder}: transformers gives scores of shape {expected.shape}, cptjax {ours.shape}."
                )
            difference = expected - ours
            largest = max(largest, float(np.abs(difference).max()))
            kl += float((np.exp(expected) * difference).sum(dtype=np.float64))
            count += len(row)
    return Agreement(count, largest, kl / count)


def refuse_disagreement(agreement: Agreement, folder: epath.PathLike) -> None:
    """What differs by more than rounding is another model.

    Raises:
        CptjaxError: the largest difference exceeds `MOST` (or is none, as of NaN).
    """
    if not agreement.largest <= MOST:
        raise CptjaxError(
            f"{folder}: cptjax and transformers disagree on it by up to {agreement.largest:.3g} nats (KL "
            f"{agreement.kl:.3g} nats per token); rounding stays below {MOST}.\n  Nothing was written. This is an error "
            "in cptjax or in its version of transformers: please report it with the folder's config.json."
        )


def check_against_transformers(
    params: Params,
    config: DecoderConfig,
    mesh: Mesh,
    folder: epath.PathLike,
    text: Where,
    rows: int,
    length: int,
    watch: Watch = unwatched,
) -> Agreement:
    """`compare` on the first rows of a text in the folder's own tokens, refused where it is more than rounding."""
    tokens = first_rows(text, open_tokenizer(str(folder)), rows, min(length, config.maximum_length))
    agreement = compare(params, config, mesh, folder, tokens, watch)
    refuse_disagreement(agreement, folder)
    return agreement


def _their_model(folder: epath.PathLike):
    """Token ids -> float32 [length, vocabulary], by transformers on this host's processor."""
    if jax.process_count() > 1:
        raise ConfigurationError(f"CHECK compares in one process; this is one of {jax.process_count()}.")
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise ConfigurationError(
            f"CHECK = True compares with transformers, and {error.name} is not installed.\n"
            "  pip install torch transformers, or leave CHECK out."
        ) from error
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True).eval()
    except Exception as error:  # whatever it raises, the folder cannot be compared
        raise CptjaxError(f"transformers cannot load {folder}: {error}") from error

    def log_probabilities(row: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([list(row)])).logits[0].float(), -1).numpy()

    return log_probabilities
