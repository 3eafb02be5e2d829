"""Tokenizing on Apache Beam: a chunk of the scan is an element, so that any runner's workers share the work.

The token files are those that a machine's own cores make (tokenizing.py), and so are the rows. Imports Beam.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import create_runner
from etils import epath

from cptjax.data.signs import signs_name
from cptjax.data.text_to_rows import Tokenize
from cptjax.data.tokenizing import Chunk, ChunkWorker, Work, chunk_name, is_done
from cptjax.errors import ConfigurationError


class TokenizeChunks(beam.DoFn):
    """(number, chunk) -> its files in `folder`, and (documents, tokens) of it."""

    def __init__(self, work: Work, folder: str):
        self._work, self._folder = work, folder

    def setup(self) -> None:
        self._worker = ChunkWorker(self._work)

    def process(self, element: tuple[int, Chunk]) -> Iterator[tuple[int, int]]:
        yield self._worker.do(*element, epath.Path(self._folder))


def tokenize_on_beam(runner: str, options: Sequence[str], scratch: str | None) -> Tokenize:
    """Tokenizes on a Beam runner.

    Args:
        runner: its name, as Beam's --runner takes it: "DirectRunner", "DataflowRunner", "FlinkRunner", ...
        options: more flags of Beam's and of the runner's: "--direct_num_workers=4", "--project=...".
        scratch: a folder that this machine and all workers see, for runners whose workers are elsewhere.
    """
    flags = beam_options(runner, options)

    def tokenize(work, chunks, folder: Path, report) -> None:
        shared = epath.Path(scratch) / folder.name if scratch else epath.Path(folder)
        shared.mkdir(parents=True, exist_ok=True)
        missing = [
            (number, chunk)
            for number, chunk in enumerate(chunks)
            if not is_done(number, shared) and not is_done(number, folder)
        ]
        if missing:
            with beam.Pipeline(options=flags) as pipeline:
                spread = pipeline | beam.Create(missing) | beam.Reshuffle()
                _ = spread | beam.ParDo(TokenizeChunks(work, str(shared)))
        if shared != epath.Path(folder):
            for number in range(len(chunks)):
                if not is_done(number, folder):
                    for name in (signs_name(number), chunk_name(number)):
                        (shared / name).copy(folder / name, overwrite=True)
            shared.rmtree()

    return tokenize


def beam_options(runner: str, options: Sequence[str]) -> PipelineOptions:
    """The flags as Beam's options.

    Raises:
        ConfigurationError: a runner that Beam does not know, a flag that nothing reads, or one with a value that it cannot have.
    """
    found, said = PipelineOptions([f"--runner={runner}", *options]), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # argparse explains there, and leaves
            create_runner(runner)
            unknown = found.get_all_options(retain_unknown_options=True).keys() - found.get_all_options().keys()
    except (SystemExit, ValueError, ImportError) as error:
        why = said.getvalue().strip().splitlines()[-1:] or [str(error)]
        raise ConfigurationError(
            f"RUNNER = {runner!r} with BEAM_OPTIONS = {list(options)!r} cannot be used by Apache Beam: {why[0]}"
        ) from error
    if unknown:
        raise ConfigurationError(f"BEAM_OPTIONS: Apache Beam has no option {', '.join(sorted(unknown))} here.")
    return found
