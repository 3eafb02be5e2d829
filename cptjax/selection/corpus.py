"""The units that a policy chooses from, their embeddings, and where its stages are kept."""

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator

import numpy as np
from etils import epath
from jax.sharding import Mesh

from cptjax.data.sources import Where, content_identity, find_source
from cptjax.data.units import DOCUMENTS, Units, make_units
from cptjax.files import read_json, write_file
from cptjax.selection.embedders import RANDOM, TFIDF, Embedder, random_vectors, tfidf_vectors
from cptjax.selection.shards import MANIFEST, Shards, write_shards
from cptjax.selection.stages import Stages
from cptjax.sharding.processes import first_then_others, is_first
from cptjax.watching import Watch, unwatched

_ENCODED = 1024  # texts that are tokenized together
EMBEDDINGS, FLOPS = "embeddings", "flops.json"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Units to choose from.

    Attributes:
        units: of the whole corpus; chosen: int64, those that are left of them, in order.
        identity: of the text, as JSON: of which files and how it was cut.
        tokenizer: the fingerprint of what the units' tokens are of; None without.
        stages: where results are kept.
        mesh: gives the devices, asked only when they are needed.
    """

    units: Units
    chosen: np.ndarray
    identity: dict
    tokenizer: str | None
    stages: Stages
    mesh: Callable[[], Mesh]
    watch: Watch = unwatched

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [units], in tokens; in bytes where nothing counts tokens."""
        return self.units.sizes[self.chosen]

    @property
    def in_tokens(self) -> bool:
        """Whether sizes are in tokens."""
        return self.units.tokens is not None

    def texts(self) -> Iterator[str]:
        """The text of each unit, in order."""
        wanted = np.zeros(len(self.units), bool)
        wanted[self.chosen] = True
        return itertools.compress(self.units.texts(), wanted.tolist())

    def left(self, kept: np.ndarray, stages: Stages) -> "Corpus":
        """Those of the units that are kept (bool), for another policy whose stages are kept there."""
        return dataclasses.replace(self, chosen=self.chosen[kept], stages=stages)

    def beside(self, name: str, where: Where, embedder: Embedder) -> "Corpus":
        """The documents of another source, whole, to be embedded with these units; `name` is the macro that names it."""
        source = find_source(name, where)
        given = (source, embedder.tokenizer, DOCUMENTS, 1, self.stages.folder / name.lower(), content_identity(source))
        units = first_then_others(lambda: make_units(*given))
        fingerprint = embedder.tokenizer.fingerprint if embedder.tokenizer else None
        identity = {"files": content_identity(source)}
        return dataclasses.replace(
            self, units=units, chosen=np.arange(len(units)), identity=identity, tokenizer=fingerprint
        )

    def vectors(self, embedder: Embedder, *also: "Corpus") -> Shards:
        """The embeddings of the units, and behind them of those of `also`, made shard by shard or found done."""
        folder = self.stages.folder / EMBEDDINGS
        done = (folder / MANIFEST).exists()
        begin = time.monotonic()
        both = [self, *also]
        count = sum(map(len, both))
        made_of = {
            "text": [each.identity for each in both],
            "chosen": [_digest(each.chosen) for each in both],
            **embedder.made_of(),
        }
        make = self._maker(embedder, both, folder)
        together = not embedder.is_control
        found = write_shards(folder, count, embedder.rows, made_of, make, embedder.dtype, self.watch, together)
        if done:
            self.stages.say(f"  {EMBEDDINGS}: done before")
        elif is_first():
            self.stages.took(EMBEDDINGS, time.monotonic() - begin)
        return found

    def _maker(self, embedder: Embedder, both: list["Corpus"], folder: epath.Path) -> Callable[[int, int], np.ndarray]:
        """(first, last) -> the vectors of these units of both. What is costly is done when the first shard is asked for."""
        ready: dict[str, object] = {}

        def texts() -> Iterator[str]:
            return itertools.chain.from_iterable(each.texts() for each in both)

        def make(first: int, last: int) -> np.ndarray:
            if embedder.of == RANDOM:
                return random_vectors(range(first, last), embedder.dimensions, embedder.seed)
            if embedder.of == TFIDF:
                if "matrix" not in ready:
                    ready["matrix"] = tfidf_vectors(texts, embedder.dimensions, embedder.seed)
                return ready["matrix"][first:last]
            if "embed" not in ready:
                ready["embed"] = embedder.on(self.mesh())
                ready["at"], ready["tokens"] = first, _tokens(embedder, both, first)
            if ready["at"] != first:  # shards between were done before
                ready["tokens"] = _tokens(embedder, both, first)
            ready["at"] = last
            sequences = list(itertools.islice(ready["tokens"], last - first))
            made = ready["embed"](sequences)
            if is_first():
                before = read_json(folder / FLOPS) if (folder / FLOPS).exists() else {}
                now = {**before, str(first): embedder.flops(map(len, sequences))}
                write_file(folder / FLOPS, json.dumps(now, indent=1) + "\n")
            return made

        return make


def _tokens(embedder: Embedder, both: list[Corpus], first: int) -> Iterator[np.ndarray]:
    """The tokens of the units from `first` on, as the embedder's tokenizer has them."""
    for each in both:
        skipped = min(first, len(each))
        first -= skipped
        if each.tokenizer == embedder.tokenizer.fingerprint:
            yield from each.units.token_sequences(each.chosen[skipped:])
            continue
        texts = itertools.islice(each.texts(), skipped, None)
        while batch := list(itertools.islice(texts, _ENCODED)):
            yield from embedder.tokenizer.encode_batch(batch)


def _digest(chosen: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(chosen, np.int64).tobytes()).hexdigest()
