"""Units as vectors: the hidden states of a checkpoint, and as controls TF-IDF and random vectors, which say nothing.

D4's are of OPT-125M, last layer, last token (arXiv 2308.12284, section 3).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cptjax.checkpoints.source import OpenedCheckpoint, open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import Tokenizer, open_tokenizer, refuse_rows_too_few
from cptjax.errors import ConfigurationError
from cptjax.evaluation.loss import everywhere
from cptjax.models.config import DecoderConfig
from cptjax.models.flops import FlopsPerToken, flops_per_token
from cptjax.models.layer_states import POOLINGS, layer_number, layer_states, pooled
from cptjax.models.model import Params
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows

TFIDF, RANDOM = "tf-idf", "random"
BATCH_TOKENS = 16384  # positions embedded at once on a mesh that does not cut the batch
_SHORTEST = 32
_WRITTEN = {"dimensions": "DIMENSIONS", "seed": "SEED"}  # the macros of recipes


@dataclasses.dataclass(frozen=True)
class Embedder:
    """What makes vectors of units.

    Attributes:
        of: a checkpoint (a Hugging Face folder or a run's), or "tf-idf", or "random".
        step: of a run; None: its newest.
        layer: whose states: 0 are the embeddings, -1 is the last one.
        pooling: "last" token or "mean" of all.
        most_tokens: of a unit that is longer, only so many, the first, are read; None: as many as the model was made for.
        dimensions: of the controls.
        seed: of the controls.
        rows: units to a file; what is killed loses at most so many.
        dtype: of the files, "float16" or "float32".
        numerics: of the checkpoint.
    """

    of: str
    step: int | None = None
    layer: int = -1
    pooling: str = "last"
    most_tokens: int | None = None
    dimensions: int = 128
    seed: int = 0
    rows: int = 4096
    dtype: str = "float16"
    numerics: Numerics = Numerics()

    def __post_init__(self):
        if self.pooling not in POOLINGS:
            raise ConfigurationError(f"POOLING = {self.pooling!r}: one of {', '.join(POOLINGS)}.")
        if not isinstance(self.of, str) or not self.of:
            raise ConfigurationError(f"EMBEDDER = {self.of!r}: a checkpoint, {TFIDF!r} or {RANDOM!r}.")
        for name, least in (("step", 0), ("most_tokens", 1), ("dimensions", 1), ("seed", 0), ("rows", 1)):
            if (value := getattr(self, name)) is not None or name in ("dimensions", "seed", "rows"):
                object.__setattr__(self, name, whole_number(value, _WRITTEN.get(name, f"Embedder.{name}"), least))

    @property
    def is_control(self) -> bool:
        """Whether no checkpoint is asked."""
        return self.of in (TFIDF, RANDOM)

    @functools.cached_property
    def checkpoint(self) -> OpenedCheckpoint:
        """The checkpoint, opened."""
        return open_checkpoint(self.of, self.step)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The checkpoint's; None of a control."""
        if self.is_control:
            return None
        tokenizer = open_tokenizer(str(self.checkpoint.model_folder))
        refuse_rows_too_few(tokenizer, self.checkpoint.config.vocabulary, f"the checkpoint at '{self.of}'")
        return tokenizer

    def made_of(self) -> dict[str, Any]:
        """What the vectors depend on, beside the units."""
        if self.is_control:
            return {"of": self.of, "dimensions": self.dimensions, "seed": self.seed}
        layer = layer_number(self.checkpoint.config, self.layer)
        weights = {"checkpoint": self.checkpoint.identity, "tokenizer": self.tokenizer.fingerprint}
        computed = {"compute_dtype": self.numerics.compute_dtype}
        return {**weights, "layer": layer, "pooling": self.pooling, "most_tokens": self.reach, **computed}

    @property
    def reach(self) -> int:
        """Tokens of a unit that are read, what begins it included."""
        longest = self.checkpoint.config.maximum_length
        return longest if self.most_tokens is None else min(self.most_tokens, longest)

    def flops(self, lengths: Iterable[int]) -> float:
        """Operations of embedding units of so many tokens each, of which the first `reach` are read; 0 of a control."""
        if self.is_control:
            return 0.0
        config, layer = self.checkpoint.config, layer_number(self.checkpoint.config, self.layer)
        begun = np.minimum(np.fromiter(lengths, np.int64) + int(self.tokenizer.adds_bos), self.reach)
        total = 0.0
        for length, units in zip(*np.unique(begun[begun > 0], return_counts=True), strict=True):
            whole: FlopsPerToken = flops_per_token(config, int(length))
            total += (whole.forward - whole.head) * layer / config.layers * int(length) * int(units)
        return total

    def on(self, mesh: Mesh) -> Callable[[Sequence[Sequence[int]]], np.ndarray]:
        """Sequences of token ids (none added) -> float32 [sequences, hidden]. The weights are loaded once."""
        config = self.checkpoint.config
        params = self.checkpoint.load_parameters(mesh)
        start = [self.tokenizer.bos] if self.tokenizer.adds_bos else []
        layer = layer_number(config, self.layer)
        program = jax.jit(
            lambda params, batch: pooled(
                layer_states(params, config, self.numerics, layer=layer, **batch), batch["segment_ids"], self.pooling
            )
        )

        def embed(sequences: Sequence[Sequence[int]]) -> np.ndarray:
            begun = [[*start, *map(int, each[: self.reach - len(start)])] for each in sequences]
            return embed_sequences(program, params, config, mesh, begun)

        return embed


def embed_sequences(
    program: Callable[[Params, Mapping[str, jax.Array]], jax.Array],
    params: Params,
    config: DecoderConfig,
    mesh: Mesh,
    sequences: Sequence[Sequence[int]],
) -> np.ndarray:
    """float32 [sequences, hidden]: `program` of batches of like lengths. A sequence without tokens has a vector of zeros."""
    found = np.zeros((len(sequences), config.hidden), np.float32)
    longest = max(map(len, sequences), default=0)
    buckets: dict[int, list[int]] = {}
    for i, sequence in enumerate(sequences):
        if sequence:
            buckets.setdefault(padded_to(len(sequence), longest), []).append(i)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    with jax.set_mesh(mesh):
        for length, members in sorted(buckets.items()):
            rows = ways * max(1, BATCH_TOKENS // (length * ways))
            waiting: list[tuple[list[int], jax.Array]] = []
            for first in range(0, len(members), rows):
                part = members[first : first + rows]
                batch = _batch([sequences[i] for i in part], rows, length)
                placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, rows, mesh)
                waiting.append((part, program(params, placed)))
                if len(waiting) > 1:
                    _take(found, *waiting.pop(0))
            for each in waiting:
                _take(found, *each)
    return found


def padded_to(length: int, longest: int) -> int:
    """What a sequence of so many tokens is padded to: to an eighth of a power of two, at most to the longest of all."""
    step = max(_SHORTEST, (1 << (length - 1).bit_length()) // 8)
    return min(-(-length // step) * step, longest)


def _batch(sequences: Sequence[Sequence[int]], rows: int, length: int) -> dict[str, np.ndarray]:
    batch = {name: np.zeros((rows, length), np.int32) for name in ("inputs", "segment_ids", "positions")}
    for row, sequence in enumerate(sequences):
        batch["inputs"][row, : len(sequence)] = sequence
        batch["segment_ids"][row, : len(sequence)] = 1
        batch["positions"][row, : len(sequence)] = np.arange(len(sequence))
    return batch


def _take(found: np.ndarray, members: list[int], vectors: jax.Array) -> None:
    found[members] = np.asarray(everywhere(vectors), np.float32)[: len(members)]


def random_vectors(units: Iterable[int], dimensions: int, seed: int) -> np.ndarray:
    """float32 [units, dimensions]: of each unit, by its number, the same whichever others are asked for."""
    drawn = [np.random.default_rng((seed, unit)).standard_normal(dimensions, np.float32) for unit in units]
    return np.stack(drawn) if drawn else np.zeros((0, dimensions), np.float32)


def tfidf_vectors(texts: Callable[[], Iterator[str]], dimensions: int, seed: int) -> np.ndarray:
    """float32 [texts, dimensions]: TF-IDF of hashed words and pairs of words, by a truncated SVD (scikit-learn).

    All in memory: a sparse matrix of the texts' words. Of fewer words or texts than dimensions, so many.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counted = HashingVectorizer(n_features=1 << 18, ngram_range=(1, 2), alternate_sign=False, norm=None).transform(
        texts()
    )
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counted)
    weighted = weighted[:, np.unique(weighted.indices)]  # hashed, most columns are empty
    most = min(weighted.shape) - 1
    if most < 1:
        return np.asarray(weighted.sum(axis=1), np.float32)
    svd = TruncatedSVD(min(dimensions, most), algorithm="randomized", random_state=seed)
    return svd.fit_transform(weighted).astype(np.float32)
