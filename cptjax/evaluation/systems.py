"""A split system: several experts, and a router that gives each text to one of them by its first tokens.

`system.json` describes it; its paths are absolute or begin in its folder:

    {"router": {"prefix_tokens": 32, "distance": "cosine"},
     "embedder": {"checkpoint": "embedder", "pooling": "mean"},
     "centroids": "centroids.npy",
     "experts": ["runs/law", "runs/code"]}

The router reads the first `prefix_tokens` of a text (all, of a shorter one), BOS included where the text has it. The embedder's
last layer over them, normalised as for its head, is averaged ("mean") or taken at the last ("last"), and the expert whose
centroid is nearest to that vector, by cosine or "euclidean", reads the text. `centroids` is a numpy array [experts, width], in
the order of the experts.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from cptjax.checkpoints.source import OpenedCheckpoint, open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import Tokenizer, open_tokenizer, refuse_rows_too_few
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.compared import Compared
from cptjax.files import read_json
from cptjax.models.config import DecoderConfig
from cptjax.models.flops import flops_per_token
from cptjax.models.layer_states import POOLINGS

SYSTEM = "system.json"
DISTANCES = ("cosine", "euclidean")


@dataclasses.dataclass(frozen=True)
class PrefixReader:
    """How a router reads: the embedder's config, the first tokens of a text that it sees, and how their states become a vector."""

    config: DecoderConfig
    prefix: int
    pooling: str


@dataclasses.dataclass(frozen=True)
class System:
    """A system that was found and understood; no weights are read yet.

    Attributes:
        path: its system.json; prefix: the tokens that its router reads; distance, pooling: see the module.
        embedder, experts: checkpoints, all of one tokenizer; centroids: float64 [experts, width].
    """

    path: epath.Path
    prefix: int
    distance: str
    pooling: str
    embedder: OpenedCheckpoint
    centroids: Float[np.ndarray, "experts width"]
    experts: tuple[OpenedCheckpoint, ...]
    tokenizer: Tokenizer

    @property
    def reader(self) -> PrefixReader:
        """How its router reads."""
        return PrefixReader(self.embedder.config, self.prefix, self.pooling)

    @functools.cached_property
    def identity(self) -> str:
        """Tells this system from others: its description, its centroids, and all of its weights."""
        weights = [each.identity for each in (self.embedder, *self.experts)]
        described = [self.prefix, self.distance, self.pooling, hashlib.sha256(self.centroids.tobytes()).hexdigest()]
        return hashlib.sha256(json.dumps([described, weights]).encode()).hexdigest()

    def compared(self, label: str) -> list[Compared]:
        """The experts as checkpoints of their own."""
        return [Compared(f"{label}, expert {n}", expert, self.tokenizer) for n, expert in enumerate(self.experts)]

    def router_flops(self, lengths: Sequence[int]) -> float:
        """Counted FLOPs of routing texts of so many tokens: the embedder over their prefixes, without its head, and the
        distances to the centroids."""
        total = 0.0
        for length in lengths:
            read = min(self.prefix, length)
            each = flops_per_token(self.embedder.config, read)
            total += (each.forward - each.head) * read + 2.0 * self.centroids.size
        return total


def system_file(path: epath.PathLike) -> epath.Path | None:
    """The system.json that `path` is, or that is in the folder that it is; None for any other checkpoint."""
    given = epath.Path(path).expanduser()
    if given.name.endswith(".json"):
        return given
    return given / SYSTEM if (given / SYSTEM).exists() else None


def open_system(file: epath.PathLike) -> System:
    """Opens a system.json and all that it names.

    Raises:
        ConfigurationError: it is not there; a field is missing, unknown or of another kind; a checkpoint that is not there, or
            is of another tokenizer than the first expert; a prefix longer than the embedder was made for; centroids of another
            shape.
    """
    file = epath.Path(file).expanduser()
    if not file.exists():
        raise ConfigurationError(f"There is nothing at '{file}': a system is described by a {SYSTEM}.")
    try:
        found = read_json(file)
    except CptjaxError as error:
        raise ConfigurationError(str(error)) from None
    top = _fields(file, "", found, {"router": dict, "embedder": dict, "centroids": str, "experts": list})
    router = _fields(file, "router.", top["router"], {"prefix_tokens": int, "distance": str}, {"distance": "cosine"})
    embedder = _fields(file, "embedder.", top["embedder"], {"checkpoint": str, "pooling": str}, {"pooling": "mean"})
    for name, value, known in (
        ("router.distance", router["distance"], DISTANCES),
        ("embedder.pooling", embedder["pooling"], POOLINGS),
    ):
        if value not in known:
            raise ConfigurationError(f"{file}: {name} = {value!r}; it is {' or '.join(map(repr, known))}.")
    if not top["experts"] or not all(isinstance(each, str) for each in top["experts"]):
        raise ConfigurationError(f"{file}: experts = {top['experts']!r}; it is a list of checkpoints' paths.")

    def opened(path: str, what: str) -> OpenedCheckpoint:
        try:
            return open_checkpoint(file.parent / path)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}, {what}: {error}") from None

    experts = tuple(opened(path, f"expert {number}") for number, path in enumerate(top["experts"]))
    reader = opened(embedder["checkpoint"], "embedder")
    prefix = whole_number(router["prefix_tokens"], f"{file}: router.prefix_tokens", minimum=1)
    named = {f"expert {number}": each for number, each in enumerate(experts)}
    tokenizer = system_tokenizer(str(file), named, reader, prefix)
    centroids = _centroids(file.parent / top["centroids"], len(experts), reader.config.hidden)
    return System(file, prefix, router["distance"], embedder["pooling"], reader, centroids, experts, tokenizer)


def system_tokenizer(
    what: str, experts: Mapping[str, OpenedCheckpoint], reader: OpenedCheckpoint, prefix: int
) -> Tokenizer:
    """The tokenizer that all models of a system have, which `what` names in messages.

    Raises:
        ConfigurationError: one of them has another than the first expert, or fewer rows than it has pieces; a prefix that is longer
            than the embedder was made for.
    """
    (first, expert), *_ = experts.items()
    tokenizer = open_tokenizer(str(expert.model_folder))
    for name, one in (("the embedder", reader), *experts.items()):
        refuse_rows_too_few(tokenizer, one.config.vocabulary, f"{what}, {name}")
        if open_tokenizer(str(one.model_folder)).fingerprint != tokenizer.fingerprint:
            raise ConfigurationError(f"{what}: {name} has another tokenizer than {first}; a system reads a text once.")
    if prefix > reader.config.maximum_length:
        raise ConfigurationError(
            f"{what}: router.prefix_tokens = {prefix}, but the embedder was made for at most "
            f"{reader.config.maximum_length} positions."
        )
    return tokenizer


def _fields(
    file: epath.Path, where: str, found: Any, kinds: Mapping[str, type], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`found`'s fields, each of its kind."""
    defaults = defaults or {}
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file}: {where.rstrip('.') or 'it'} is not a JSON object.")
    for name in sorted(set(found) - set(kinds)):
        raise ConfigurationError(f"{file}: {where}{name} is not known; there is {', '.join(where + k for k in kinds)}.")
    found = {**defaults, **found}
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind) or isinstance(found.get(name), bool):
            shown = f"is {found[name]!r}" if name in found else "is missing"
            raise ConfigurationError(f"{file}: {where}{name} {shown}; it is {_KINDS[kind]}.")
    return found


_KINDS = {dict: "a JSON object", list: "a list", str: "a text", int: "a whole number"}


def _centroids(path: epath.Path, experts: int, width: int) -> Float[np.ndarray, "experts width"]:
    if not path.exists():
        raise ConfigurationError(f"There are no centroids at '{path}': a numpy array [experts, width] (.npy).")
    try:
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
    except ValueError as error:
        raise ConfigurationError(f"{path} is not a numpy array: {error}") from None
    if found.shape != (experts, width) or not np.issubdtype(found.dtype, np.floating) or not np.isfinite(found).all():
        raise ConfigurationError(
            f"{path} holds {found.dtype} {list(found.shape)}; centroids are finite numbers [experts, the embedder's width], here "
            f"[{experts}, {width}]."
        )
    return found.astype(np.float64)
