"""The child's work: a source is scanned, tokenized chunk by chunk on all cores, and packed into the rows of each split.

Everything is made in a folder beside the final one, which is given its name last. A preparation that was interrupted goes on
there: the scan and every chunk that is done are kept.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from etils import epath

from cptjax.data.contamination import describe_exams, open_exams
from cptjax.data.local import publish
from cptjax.data.packing import BEST_FIT, Row, pack, pack_best_fit
from cptjax.data.records import as_written
from cptjax.data.rows import MANIFEST, Manifest, RowWriter
from cptjax.data.scan import Scan, Survey, asked_for, decide, load_survey, save_survey, survey
from cptjax.data.scored_part import ScoredPart, scored_parts
from cptjax.data.signs import read_signs, signs_name
from cptjax.data.sources import Source, content_identity
from cptjax.data.splits import SplitSettings
from cptjax.data.token_files import TokenFile
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.data.tokenizing import Chunk, Work, chunk_name, tokenize_chunks
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local

TRAIN, VALIDATION = SPLITS = ("train", "validation")
ROWS = "rows"  # in the folder of what is not finished
_REPORT_SECONDS = 5.0

# (work, chunks, folder, heard of documents and tokens) -> the files of all chunks are there
Tokenize = Callable[[Work, Sequence[Chunk], Path, Callable[[int, int], None]], None]


def make_rows(job: Mapping, tokenize: Tokenize, report: Callable[[str], None]) -> None:
    """Makes the rows of a job (`prepare.ensure_rows` writes it), unless another process has meanwhile.

    Raises:
        ConfigurationError: the text is malformed, or is none.
        CptjaxError: it changed while it was read.
    """
    source, split = Source.from_json(job["source"]), SplitSettings(**job["split"])
    tokenizer = open_tokenizer(job["tokenizer"])
    with unfinished_folder(job["folder"]) as folder:
        if all((epath.Path(job["folder"]) / each / MANIFEST).exists() for each in SPLITS):
            return
        began = time.monotonic()
        read = load_survey(folder)
        if read is None:
            if job["exams"]:  # found wrong before anything is read
                report(f"  {describe_exams(open_exams([each['path'] for each in job['exams']]))}")
            read = survey(source, tokenizer, report)
            save_survey(read, folder)
        else:
            report(f"  {source.name}: going on with what was prepared before")
        if read.bad["records"]:
            report(
                f"  {source.name}: {read.bad['records']:,} malformed records are passed over; {read.bad['first'][0]}"
            )
        work = Work(source, job["tokenizer"], asked_for(split, [each["path"] for each in job["exams"]]))
        tokenize(work, read.chunks, folder, _progress(source.name, read, report))
        signs = (sign for number in range(len(read.chunks)) for sign in read_signs(folder / signs_name(number)))
        files = [TokenFile(folder / chunk_name(number)) for number in range(len(read.chunks))]
        found = decide(read, signs, split, lambda: np.concatenate([file.lengths for file in files]) - 1)
        if not len(found.members(TRAIN)):
            raise ConfigurationError(
                f"source {source.name!r}: every document holds an item of the exams, or is held out: none is left to train on.\n"
                "  A source that is one of the exam files itself, the same file, says keep_own_items (docs/data.md)."
            )
        if found.contamination["documents"]:
            report(
                f"  {source.name}: {found.contamination['documents']:,} documents hold {found.contamination['items']:,} exam items "
                "and are left out"
            )
        shutil.rmtree(folder / ROWS, ignore_errors=True)  # half of it, perhaps
        manifests = [_write_split(job, source, tokenizer, each, found, files, folder) for each in SPLITS]
        if content_identity(source) != job["files"]:
            shutil.rmtree(folder)
            raise CptjaxError(f"the files of source {source.name!r} changed while they were read.\n  Run again.")
        publish(epath.Path(folder / ROWS), job["folder"], last=[MANIFEST])
        shutil.rmtree(folder)
    for manifest in manifests:
        report(
            f"  {manifest.source} {manifest.split}: {manifest.documents:,} documents, {manifest.bytes / 1e6:,.1f} MB, "
            f"{manifest.tokens:,} tokens, {manifest.rows:,} rows ({time.monotonic() - began:.0f} s)"
        )


def tokenize_here(processes: int | None = None) -> Tokenize:
    """Tokenizes on the cores of this machine, so many processes at a time (None: all cores)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def tokenize(work, chunks, folder, report) -> None:
        tokenize_chunks(work, chunks, folder, processes or cores, report)

    return tokenize


@contextlib.contextmanager
def unfinished_folder(final: str) -> Iterator[Path]:
    """Where `final` is being made, on this machine, for one process at a time: another waits here until the first is done."""
    if is_local(final):
        folder = Path(final).parent / f".{Path(final).name}.unfinished"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        folder = cache / "cptjax" / "unfinished" / epath.Path(final).name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(Path(f"{folder}.lock")):
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            if folder.exists() and not any(folder.iterdir()):  # nothing to go on with
                folder.rmdir()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Within it no other process of this machine holds the lock file, which is gone afterwards."""
    while True:
        with path.open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists() or path.stat().st_ino != os.fstat(lock.fileno()).st_ino:
                continue  # who held it has removed it: another file of that name is the lock now
            try:
                yield
            finally:
                path.unlink()
            return


def _progress(name: str, found: Survey, report: Callable[[str], None]) -> Callable[[int, int], None]:
    """Tells now and then how much is tokenized."""
    done = tokens = 0
    began = told = time.monotonic()

    def hear(documents: int, count: int) -> None:
        nonlocal done, tokens, told
        done, tokens = done + documents, tokens + count
        moment = time.monotonic()
        if moment - told > _REPORT_SECONDS:
            told = moment
            rate = tokens / (moment - began)
            report(f"  {name}: {done:,} of {len(found.names):,} documents, {tokens:,} tokens, {rate:,.0f} tokens/s")

    return hear


def _write_split(
    job: Mapping,
    source: Source,
    tokenizer: Tokenizer,
    split: str,
    found: Scan,
    files: Sequence[TokenFile],
    folder: Path,
) -> Manifest:
    writer = RowWriter(str(folder / ROWS / split), job["sequence_length"], tokenizer.size)
    marked = split == VALIDATION and source.settings.scored_after is not None
    parts = list(scored_parts(source, tokenizer, found.members(split).tolist())) if marked else None
    for row in _rows(job, split, found, files, writer, parts):
        writer.row(row)
    return writer.finish(
        source=source.name,
        split=split,
        files=tuple(job["files"]),
        tokenizer={
            **{"name": tokenizer.name, "fingerprint": tokenizer.fingerprint, "size": tokenizer.size},
            "loses": tokenizer.loses,
        },
        start=tokenizer.start,
        eos=tokenizer.eos,
        packing=job["packing"],
        settings={
            "split": job["split"],
            "grouping": dict(found.grouping),
            "records": as_written(source.settings),
            "malformed_records": found.bad["records"],
            "exams": [each["sha256"] for each in job["exams"]],
            "contamination": dict(found.contamination),
        },
    )


def _rows(
    job: Mapping,
    split: str,
    found: Scan,
    files: Sequence[TokenFile],
    writer: RowWriter,
    parts: Sequence[ScoredPart] | None,
) -> Iterator[Row]:
    """Notes the documents of a split and gives its rows; `parts`: what counts of each, None: all of them."""
    chosen = found.members(split)
    firsts = np.array([chunk.first for chunk in found.chunks])
    chunk = np.searchsorted(firsts, chosen, "right") - 1

    def tokens(place: int) -> np.ndarray:
        return files[chunk[place]][int(chosen[place] - firsts[chunk[place]])]

    ordinals = np.empty(len(chosen), np.int64)
    lengths = np.empty(len(chosen), np.int64)
    for place, which in enumerate(chosen.tolist()):
        lengths[place] = files[chunk[place]].lengths[which - firsts[chunk[place]]] - 1
        size = int(lengths[place]) - (0 if parts is None else parts[place].first)
        text_bytes = found.sizes[which] if parts is None else parts[place].bytes
        ordinals[place] = writer.document(found.names[which], text_bytes, size, found.metadata[which])
    counts = None if parts is None else dict(zip(ordinals.tolist(), (part.first for part in parts), strict=True))
    if job["packing"] == BEST_FIT:
        return pack_best_fit(ordinals, lengths, tokens, job["sequence_length"], counts)
    whole = ((int(ordinals[place]), tokens(place)) for place in range(len(chosen)))
    return pack(whole, job["sequence_length"], counts)
