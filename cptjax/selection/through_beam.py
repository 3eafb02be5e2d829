"""Work on Apache Beam whose elements come from here and whose results come back here, through files. Imports Beam."""

import contextlib
import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from etils import epath

from cptjax.data.beam_tokenizing import beam_options

Transform = Callable[[beam.PCollection], beam.PCollection]


def through_beam(
    elements: Iterable[Any], transform: Transform, runner: str, options: Sequence[str] = (), scratch: str | None = None
) -> list[Any]:
    """What a transform makes of the elements, in any order; both are what JSON holds.

    Args:
        runner: its name, as Beam's --runner takes it; options: more flags of Beam's and of the runner's.
        scratch: a folder that this machine and all workers see; None: a temporary one of this machine, for runners on it.

    Raises:
        ConfigurationError: a runner or an option that Beam does not know.
    """
    flags = beam_options(runner, list(options))
    with _folder(scratch) as folder:
        with (folder / "elements.jsonl").open("w") as lines:
            for element in elements:
                lines.write(json.dumps(element) + "\n")
        with beam.Pipeline(options=flags) as pipeline:
            read = pipeline | beam.io.ReadFromText(str(folder / "elements.jsonl")) | "elements" >> beam.Map(json.loads)
            made = transform(read | beam.Reshuffle())
            _ = made | "as lines" >> beam.Map(json.dumps) | beam.io.WriteToText(str(folder / "made"))
        found = []
        for path in folder.glob("made-*"):
            with path.open("r") as lines:
                found += map(json.loads, lines)
    return found


@contextlib.contextmanager
def _folder(scratch: str | None) -> Iterator[epath.Path]:
    if scratch is None:
        with tempfile.TemporaryDirectory() as folder:
            yield epath.Path(folder)
        return
    folder = epath.Path(scratch).expanduser() / f"cptjax-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        folder.rmtree()
