"""The child's work: SeqIO tokenizes each split of a source, and what comes out is packed. Imports TensorFlow."""

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
from cptjax.data.scan import Scan
from cptjax.data.sources import Source, content_identity
from cptjax.data.tasks import SPLITS, register_mixture, register_task, task_name
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import CptjaxError

_REPORT_SECONDS = 5.0


def text_to_rows(jobs: Sequence[Mapping], scans: Mapping[str, Scan]) -> None:
    """Makes the rows of each job (`prepare.ensure_rows` writes them), all tasks of one SeqIO mixture."""
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    for job in jobs:
        source = Source(**job["source"])
        register_task(source, open_tokenizer(job["tokenizer"]), scans[source.name].held_out)
    mixture = register_mixture("cptjax.prepare", {job["source"]["name"]: 1.0 for job in jobs})
    tasks = {task.name: task for task in mixture.tasks}  # SeqIO sorts them by name
    for job in jobs:
        task = tasks[task_name(job["source"]["name"])]
        started = time.monotonic()
        final = job["folder"]
        aside = staging_folder(final)
        try:
            found = [
                _write_split(job, task, split, scans[job["source"]["name"]], str(aside / split)) for split in SPLITS
            ]
            if content_identity(Source(**job["source"])) != job["files"]:
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
        settings={"split": job["split"], "grouping": dict(scan.grouping)},
    )
