"""Tokenizing on Apache Beam: a chunk of the scan is an element, so that any runner's workers share the work.

The token files are those that a machine's own cores make (tokenizing.py), and so are the rows. Imports Beam.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from cptjax.data.sources import Source
from cptjax.data.text_to_rows import Tokenize
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizing import Chunk, ChunkReader, chunk_name, tokenize_chunk
from cptjax.errors import ConfigurationError


class TokenizeChunks(beam.DoFn):
    """(number, chunk) -> its token file in `folder`, and (documents, tokens) of it."""

    def __init__(self, source: Source, tokenizer: str, folder: str):
        self._source, self._tokenizer, self._folder = source, tokenizer, folder

    def setup(self) -> None:
        self._reader = ChunkReader(self._source, open_tokenizer(self._tokenizer))

    def process(self, element: tuple[int, Chunk]) -> Iterator[tuple[int, int]]:
        number, chunk = element
        yield tokenize_chunk(self._reader, chunk, epath.Path(self._folder) / chunk_name(number))


def tokenize_on_beam(runner: str, options: Sequence[str], scratch: str | None) -> Tokenize:
    """Tokenizes on a Beam runner.

    Args:
        runner: its name, as Beam's --runner takes it: "DirectRunner", "DataflowRunner", "FlinkRunner", ...
        options: more flags of Beam's and of the runner's: "--direct_num_workers=4", "--project=...".
        scratch: a folder that this machine and all workers see, for runners whose workers are elsewhere.
    """
    try:
        flags = PipelineOptions([f"--runner={runner}", *options])
    except (SystemExit, ValueError) as error:  # argparse leaves
        raise ConfigurationError(f"BEAM_OPTIONS = {list(options)!r} cannot be read by Apache Beam: {error}") from error

    def tokenize(source, tokenizer, chunks, folder: Path, report) -> None:
        shared = epath.Path(scratch) / folder.name if scratch else epath.Path(folder)
        shared.mkdir(parents=True, exist_ok=True)
        missing = [
            (number, chunk)
            for number, chunk in enumerate(chunks)
            if not (shared / chunk_name(number)).exists() and not (folder / chunk_name(number)).exists()
        ]
        if missing:
            with beam.Pipeline(options=flags) as pipeline:
                work = pipeline | beam.Create(missing) | beam.Reshuffle()
                _ = work | beam.ParDo(TokenizeChunks(source, tokenizer, str(shared)))
        if shared != epath.Path(folder):
            for number in range(len(chunks)):
                if not (folder / chunk_name(number)).exists():
                    (shared / chunk_name(number)).copy(folder / chunk_name(number))
            shared.rmtree()

    return tokenize
