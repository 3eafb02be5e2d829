"""The text that a vocabulary is trained on: an even sample of named sources, the same wherever it is drawn."""

import dataclasses
import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cptjax.data.document import Document
from cptjax.data.sources import Source, documents
from cptjax.errors import ConfigurationError
from cptjax.watching import Watch, unwatched

_HELD = 64_000_000  # bytes of text: sources that are no larger together are read once, others once more
_EXAMPLES = 200  # documents of a source on which its bytes per token are measured


@dataclasses.dataclass(frozen=True)
class Survey:
    """A source as it was read: how much it holds, some documents drawn from all over it, and all if they are few."""

    source: Source
    documents: int
    bytes: int
    examples: Sequence[Document]
    held: Sequence[Document] | None

    def sampled(self, fraction: float, seed: int) -> Iterator[Document]:
        """About `fraction` of the source's documents, chosen by their names alone; all of them for 1."""
        for document in self.held if self.held is not None else documents(self.source):
            if fraction >= 1 or _draw(self.source, document, seed) < fraction * 2.0**64:
                yield document


def survey(sources: Iterable[Source], watch: Watch = unwatched) -> Iterator[Survey]:
    """Reads each source.

    Raises:
        ConfigurationError: a source without text.
    """
    room = _HELD
    for source in sources:
        count, size = 0, 0
        held: list[Document] | None = []
        examples: list[tuple[int, int, Document]] = []
        for document in watch(documents(source), None, f"reading {source.name}, documents"):
            count, size = count + 1, size + document.size
            entry = (-_draw(source, document, "examples"), count, document)
            if len(examples) < _EXAMPLES:
                heapq.heappush(examples, entry)
            else:
                heapq.heappushpop(examples, entry)
            if held is not None:
                held.append(document)
            if size > room:
                held = None
        if not count:
            raise ConfigurationError(
                f"source {source.name!r} is empty: there is no document with text in {source.where}."
            )
        room -= size if held is not None else 0
        yield Survey(source, count, size, [entry[2] for entry in sorted(examples)], held)


def sample_fractions(sizes: Mapping[str, int], temperature: float, sample_bytes: int | None) -> dict[str, float]:
    """Which part of each source (bytes by name) is trained on.

    The shares are bytes ** (1 / temperature); as much is taken in all as `sample_bytes` and the smallest source allow.
    """
    weights = {name: size ** (1 / temperature) for name, size in sizes.items()}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    total = min(sizes[name] / share for name, share in shares.items())
    if sample_bytes is not None:
        total = min(total, sample_bytes)
    return {name: min(1.0, total * shares[name] / sizes[name]) for name in sizes}


def _draw(source: Source, document: Document, seed: object) -> int:
    """An integer below 2**64 that the names of a document and its source decide."""
    return int.from_bytes(hashlib.sha256(f"{seed} {source.name} {document.name}".encode()).digest()[:8], "little")
