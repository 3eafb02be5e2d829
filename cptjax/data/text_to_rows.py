"""The child's work: scan a source and split it, let SeqIO tokenize it, pack what comes out. Imports TensorFlow."""

import dataclasses
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: its greetings are not our errors

import numpy as np
import seqio
import tensorflow as tf

from cptjax.data.local import publish, staging_folder
from cptjax.data.packing import pack
from cptjax.data.rows import MANIFEST, Manifest, RowWriter
from cptjax.data.sources import Source, content_identity, documents
from cptjax.data.splits import SplitSettings, held_out, text_group
from cptjax.data.tasks import SPLITS, register_mixture, register_task
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError

_REPORT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Scan:
    """What one reading of a source tells: a name, a size, metadata and a place in the split for each document."""

    names: list[str]
    sizes: list[int]
    metadata: list[Mapping]
    held_out: np.ndarray


def text_to_rows(jobs: Sequence[Mapping]) -> None:
    """Makes the rows of each job (`prepare.ensure_rows` writes them), all tasks of one SeqIO mixture.

    Raises:
        ConfigurationError: a malformed document, an empty corpus.
    """
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    scans = {}
    for job in jobs:
        source, tokenizer = _source(job), open_tokenizer(job["tokenizer"])
        scans[source.name] = scan(source, tokenizer, SplitSettings(**job["split"]))
        register_task(source, tokenizer, scans[source.name].held_out)
    mixture = register_mixture("cptjax.prepare", {job["source"]["name"]: 1.0 for job in jobs})
    for job, task in zip(jobs, mixture.tasks, strict=True):
        started = time.monotonic()
        final = job["folder"]
        aside = staging_folder(final)
        try:
            found = [
                _write_split(job, task, split, scans[job["source"]["name"]], str(aside / split)) for split in SPLITS
            ]
            if content_identity(_source(job)) != job["files"]:
                raise CptjaxError(
                    f"the files of source {job['source']['name']!r} changed while they were read.\n  Run again."
                )
            publish(aside, final, last=[MANIFEST])
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        for manifest in found:
            print(
                f"  {manifest.source} {manifest.split}: {manifest.documents:,} documents, "
                f"{manifest.bytes / 1e6:,.1f} MB, {manifest.tokens:,} tokens, {manifest.rows:,} rows "
                f"({time.monotonic() - started:.0f} s)"
            )


def scan(source: Source, tokenizer: Tokenizer, split: SplitSettings) -> Scan:
    """Reads the source once, before any token is made, so that a malformed line anywhere is found first."""
    names, sizes, metadata, groups, tokens = [], [], [], [], []
    candidate = int(split.fraction * 2.0**64)
    for document in documents(source):
        names.append(document.name)
        sizes.append(document.size)
        metadata.append(document.metadata)
        groups.append(text_group(document.text))
        # Only documents that may be held out need counting here.
        tokens.append(len(tokenizer.encode(document.text)) + 1 if groups[-1] < candidate else 0)
    if not names:
        where = source.tfds or (source.files[0] if len(source.files) == 1 else f"{len(source.files)} files")
        raise ConfigurationError(
            f"source {source.name!r} is empty: there is no document with text in {where}.\n"
            "  A blend cannot read from it; leave it out, or give other files."
        )
    return Scan(names, sizes, metadata, held_out(np.array(groups, np.uint64), np.array(tokens), split))


def _write_split(job: Mapping, task: seqio.Task, split: str, scan: Scan, folder: str) -> Manifest:
    tokenizer = open_tokenizer(job["tokenizer"])
    writer = RowWriter(folder, job["sequence_length"], tokenizer.size)
    name, told = job["source"]["name"], time.monotonic()

    def tokenized() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal told
        for example in task.get_dataset(split=split, shuffle=False).as_numpy_iterator():
            which, tokens = int(example["ordinal"]), example["targets"]
            yield writer.document(scan.names[which], scan.sizes[which], len(tokens) - 1, scan.metadata[which]), tokens
            if time.monotonic() - told > _REPORT_SECONDS:
                told = time.monotonic()
                print(
                    f"  {name} {split}: {writer.documents:,} of {len(scan.names):,} documents, {writer.tokens:,} tokens"
                )

    for row in pack(tokenized(), job["sequence_length"]):
        writer.row(row)
    return writer.finish(
        source=name,
        split=split,
        files=tuple(job["files"]),
        tokenizer={"name": tokenizer.name, "fingerprint": tokenizer.fingerprint, "size": tokenizer.size},
        start=tokenizer.start,
        eos=tokenizer.eos,
        settings={"split": job["split"]},
    )


def _source(job: Mapping) -> Source:
    found = job["source"]
    return Source(found["name"], tuple(found["files"]), found["tfds"])
