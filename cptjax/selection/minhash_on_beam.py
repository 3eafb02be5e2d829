"""Near-duplicates by MinHash on Apache Beam: signatures, buckets and the verification of candidates are the workers'. Imports Beam.

What passes between machines is a hash for each band and text, and the shingles of texts that are candidates.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from cptjax.selection.minhash import band_keys, bucket_pairs, signatures
from cptjax.selection.shingles import jaccard, shingled
from cptjax.selection.through_beam import through_beam

_TOGETHER = 64  # texts in an element


@dataclasses.dataclass(frozen=True)
class Banding:
    """How texts become candidates: what a shingle is, the least similarity of a pair, and the bands of a signature."""

    shingle: str
    threshold: float
    permutations: int
    bands: int
    rows: int
    seed: int = 1


class SignTexts(beam.DoFn):
    """(first number, texts) -> of each text its bands, (band's hash, number), and, tagged "sets", (number, its shingles)."""

    def __init__(self, how: Banding):
        self._how = how

    def process(self, element: tuple[int, Sequence[str]]) -> Iterator[Any]:
        first, texts = element
        how = self._how
        sets = [shingled(text, how.shingle) for text in texts]
        keys = band_keys(signatures(sets, how.permutations, how.seed), how.bands, how.rows)
        for number, (each, bands) in enumerate(zip(sets, keys.tolist(), strict=True), first):
            if len(each):
                yield beam.pvalue.TaggedOutput("sets", (number, each.tobytes()))
                yield from ((band, number) for band in bands)


class Verify(beam.DoFn):
    """(number, its shingles and those that others send it) -> (i, j, similarity) of what reaches the threshold."""

    def __init__(self, threshold: float):
        self._threshold = threshold

    def process(self, element: tuple[int, dict]) -> Iterator[tuple[int, int, float]]:
        number, found = element
        for mine in found["own"]:
            own = np.frombuffer(mine, np.uint64)
            for other, theirs in found["sent"]:
                similarity = jaccard(own, np.frombuffer(theirs, np.uint64))
                if similarity >= self._threshold:
                    yield other, number, similarity


def _send(element: tuple[int, dict]) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """A text's shingles to every later one that it is to be compared with."""
    number, found = element
    for mine in found["own"]:
        for other in found["to"]:
            yield other, (number, mine)


def near_duplicate_edges(texts: beam.PCollection, how: Banding) -> beam.PCollection:
    """(first number, texts) -> (i, j, similarity), i < j, of every verified pair, once."""
    signed = texts | beam.ParDo(SignTexts(how)).with_outputs("sets", main="bands")
    pairs = (
        signed.bands
        | "buckets" >> beam.GroupByKey()
        | "pairs" >> beam.FlatMap(lambda bucket: bucket_pairs(set(bucket[1])))
        | beam.Distinct()
    )
    sent = {"own": signed.sets, "to": pairs} | "to whom" >> beam.CoGroupByKey() | "send" >> beam.FlatMap(_send)
    return {"own": signed.sets, "sent": sent} | "meet" >> beam.CoGroupByKey() | beam.ParDo(Verify(how.threshold))


def edges_on_beam(
    texts: Iterable[str], how: Banding, runner: str, options: Sequence[str] = (), scratch: str | None = None
) -> list[tuple[int, int, float]]:
    """The verified pairs (i, j, similarity), sorted; see `through_beam` for where they are found."""
    texts = iter(texts)

    def elements() -> Iterator[tuple[int, list[str]]]:
        first = 0
        while batch := list(itertools.islice(texts, _TOGETHER)):
            yield first, batch
            first += len(batch)

    found = through_beam(elements(), lambda read: near_duplicate_edges(read, how), runner, options, scratch)
    return sorted(map(tuple, found))
