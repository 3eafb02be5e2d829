"""Near-duplicates by MinHash on Apache Beam: signatures, buckets and the verification of candidates are the workers'. Imports Beam.

What passes between machines is a hash for each band and text, and the shingles of texts that are candidates.
"""

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np

from cptjax.data.beam_tokenizing import beam_options
from cptjax.selection.minhash import band_keys, bucket_pairs, signatures
from cptjax.selection.shingles import jaccard, shingled

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
    texts: Iterable[str], how: Banding, runner: str, options: Iterable[str] = (), scratch: str | None = None
) -> tuple[int, list[tuple[int, int, float]]]:
    """How many texts there are, and the verified pairs (i, j, similarity), sorted.

    Texts and pairs pass through files in `scratch`, a folder that all workers see (None: a temporary one of this machine).

    Raises:
        ConfigurationError: a runner or an option that Beam does not know.
    """
    texts, count = iter(texts), 0
    flags = beam_options(runner, list(options))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        source = Path(folder) / "texts.jsonl"
        with source.open("w", encoding="utf-8") as lines:
            while batch := list(itertools.islice(texts, _TOGETHER)):
                lines.write(json.dumps([count, batch]) + "\n")
                count += len(batch)
        with beam.Pipeline(options=flags) as pipeline:
            read = pipeline | beam.io.ReadFromText(str(source)) | beam.Map(json.loads) | beam.Reshuffle()
            edges = near_duplicate_edges(read, how)
            _ = edges | "as lines" >> beam.Map(json.dumps) | beam.io.WriteToText(str(Path(folder) / "edges"))
        found = []
        for path in Path(folder).glob("edges-*"):
            with path.open(encoding="utf-8") as lines:
                found += [tuple(json.loads(line)) for line in lines]
    return count, sorted(found)
