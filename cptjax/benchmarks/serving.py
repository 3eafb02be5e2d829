"""Packed rows as batches: how fast on one core, how soon at a far step, and in how much memory however large the corpus."""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from cptjax.benchmarks.bpe import train_bpe
from cptjax.benchmarks.corpora import read_texts, write_random_rows, write_variants
from cptjax.benchmarks.memory import allocated, run_and_watch
from cptjax.configuration.values import whole_number
from cptjax.data.batch import batch
from cptjax.data.plan import DataPlan, source_info
from cptjax.data.planning import plan_data
from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader

_READ = "readahead_buffer_size:0,max_parallelism:0"  # as array_record advises for random access, and as we read
_WARM_UP = 20  # batches before memory is looked at


def serve_rows(
    text: str | None = None,
    length: float = 2048,
    rows: float = 64,
    sources: float = 4,
    tokens: float = 8e6,
    batches: float = 150,
    repeats: float = 5,
    step: float = 1e6,
    blend: float = 30,
    larger: float = 10,
    text_bytes: float = 9e6,
    processes: float = 2,
    vocabulary: float = 32000,
) -> dict[str, Any]:
    """Serves a blend of `sources` whose shares fall by halves, from a warm cache, and measures.

    Args:
        text: a file of documents that rows and corpora are made of; None: random ids and words.
        length, rows: tokens in a row, rows in a batch.
        tokens: of the served rows together, where there is no text.
        batches, repeats: batches in a turn, and turns of each; the quickest counts.
        step, blend: a run of `blend` sources (the same rows under many names) is resumed at `step`.
        larger: how many times as large the other corpus is that memory is measured with.
        text_bytes: of the smaller corpus that is prepared to see its memory, by `processes` processes.

    Returns:
        `tokens_per_second` of batches; `tokens_per_second_array_record`, of the same records as bytes, nothing done with
        them, and `of_array_record`, the ratio; seconds from a plan's JSON to the first batch at `step`, shares between
        0.001 and 1 and, `resume_seconds_tiny_shares`, down to 0.00001; MB that 200 batches added, and MB of preparing, all its
        processes together at their most, for either corpus.
    """
    length, rows, sources, batches, repeats, step, blend, larger, processes = (
        whole_number(value, name, minimum=1)
        for value, name in (
            (length, "LENGTH"),
            (rows, "ROWS"),
            (sources, "SOURCES"),
            (batches, "BATCHES"),
            (repeats, "REPEATS"),
            (step, "STEP"),
            (blend, "BLEND"),
            (larger, "LARGER"),
            (processes, "PROCESSES"),
        )
    )
    with tempfile.TemporaryDirectory(prefix="cptjax-benchmark-") as folder:
        root = Path(folder)
        texts = read_texts(text, text_bytes)
        tokenizer = train_bpe(texts, whole_number(vocabulary, "VOCABULARY", minimum=257), root / "tokenizer")
        served = _random_folders(root / "served", sources, tokens, length)
        if text is not None:
            served = _folders_of(text, tokenizer, sources, length, processes, root)
        return {
            "batch": f"{rows} x {length}",
            **_speed(served, rows, batches, repeats),
            **_resume(served, rows, step, blend, repeats),
            **_memory_of_serving(root, rows, sources, tokens, length, larger),
            **_memory_of_preparing(root, texts, tokenizer, length, processes, larger),
        }


def _random_folders(root: Path, sources: int, tokens: float, length: int) -> list[str]:
    folders = [str(root / f"source-{i}") for i in range(sources)]
    for i, folder in enumerate(folders):
        write_random_rows(folder, tokens / sources, length, seed=i)
    return folders


def _folders_of(text: str, tokenizer: str, sources: int, length: int, processes: int, root: Path) -> list[str]:
    """The training rows of the text's documents, dealt out to so many sources."""
    dealt = {}
    every = read_texts(text, float("inf"))
    for i in range(sources):
        dealt[f"source-{i}"] = str(root / f"source-{i}.jsonl")
        write_variants(every[i::sources], 1, Path(dealt[f"source-{i}"]))
    how, quiet = {"processes": processes}, lambda line: None
    prepared = ensure_rows(dealt, tokenizer, length, str(root / "rows"), how=how, report=quiet)
    return [each.train for each in prepared.values()]


def _plan(readers: Mapping[str, RowReader], weights: Sequence[float], rows: int, steps: int) -> DataPlan:
    infos = {}
    for name, reader in readers.items():
        infos[name] = source_info(reader.manifest)
    return plan_data([("all", dict(zip(infos, weights, strict=True)), steps)], infos, rows, seed=0)


def _opened(folders: Sequence[str], count: int | None = None) -> dict[str, RowReader]:
    return {f"source-{i}": RowReader(folders[i % len(folders)]) for i in range(count or len(folders))}


# --- Speed ---


def _speed(folders: Sequence[str], rows: int, batches: int, repeats: int) -> dict[str, Any]:
    readers = _opened(folders)
    plan = _plan(readers, [0.5**i for i in range(len(folders))], rows, batches)
    raw = {name: _shards(reader) for name, reader in readers.items()}
    planned = [plan.rows(step) for step in range(batches)]

    def read_alone(step: int) -> None:
        source, row = planned[step]
        for i in np.unique(source):
            starts, shards = raw[plan.names[i]]
            wanted = row[source == i]
            of = np.searchsorted(starts, wanted, "right") - 1
            for shard in np.unique(of):
                shards[shard].read((wanted[of == shard] - starts[shard]).tolist())

    seconds: dict[str, list[float]] = {"ours": [], "array_record": []}
    with _one_core():
        for _ in range(1 + repeats):  # the first turn warms the cache
            for name, work in (("ours", lambda step: batch(readers, plan, step)), ("array_record", read_alone)):
                begin = time.perf_counter()
                for step in range(batches):
                    work(step)
                seconds[name].append(time.perf_counter() - begin)
    served = batches * rows * next(iter(readers.values())).manifest.sequence_length
    ours, alone = (served / min(each[1:]) for each in seconds.values())
    return {
        "tokens_per_second": ours,
        "tokens_per_second_array_record": alone,
        "of_array_record": ours / alone,
    }


def _shards(reader: RowReader) -> tuple[np.ndarray, list[ArrayRecordReader]]:
    """The first row of each shard, and the shards."""
    shards = reader.manifest.shards
    starts = np.cumsum([0, *(shard["rows"] for shard in shards)])[:-1]
    return starts, [ArrayRecordReader(f"{reader.folder}/{shard['name']}", _READ) for shard in shards]


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """This thread on one core, where the system lets us say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


# --- Resuming ---


def _resume(folders: Sequence[str], rows: int, step: int, blend: int, repeats: int) -> dict[str, Any]:
    spread = np.random.default_rng(0).uniform(0, 1, blend)

    def resume(written: str) -> None:
        plan = DataPlan.from_json(written)
        batch(_opened(folders, blend), plan, step)

    found = {}
    for name, decades in (("resume_seconds", 3), ("resume_seconds_tiny_shares", 5)):
        weights = [1.0, *(10 ** -(decades * spread[1:]))]
        written = _plan(_opened(folders, blend), weights, rows, step + 1).to_json()
        found[name] = statistics.median(_seconds(resume, written) for _ in range(repeats))
    return {"resume_step": step, "resume_sources": blend, **found}


def _seconds(work: Callable[[str], None], given: str) -> float:
    begin = time.perf_counter()
    work(given)
    return time.perf_counter() - begin


# --- Memory: each part in a process of its own, `python -m cptjax.benchmarks.serving [part, ...]` ---


def _memory_of_serving(root: Path, rows: int, sources: int, tokens: float, length: int, larger: int) -> dict[str, Any]:
    found = {}
    for times in (1, larger):
        folders = _random_folders(root / f"serving-{times}", sources, times * tokens, length)
        found[f"serving_added_mb_{times}x"] = json.loads(_part("serving", folders, rows)[0].splitlines()[-1])
    return found


def _memory_of_preparing(
    root: Path, texts: list[str], tokenizer: str, length: int, processes: int, larger: int
) -> dict[str, Any]:
    found: dict[str, Any] = {"preparing_text_mb": sum(map(len, texts)) / 1e6}
    for times in (1, larger):
        write_variants(texts, times, root / f"{times}.jsonl")
        _, most = _part(
            "preparing", str(root / f"{times}.jsonl"), tokenizer, length, str(root / f"rows-{times}"), processes
        )
        found[f"preparing_mb_{times}x"] = most / 1e6 if most else None
    return found


def _part(*given: object) -> tuple[str, int | None]:
    return run_and_watch([sys.executable, "-m", "cptjax.benchmarks.serving", json.dumps(given)])


def _serve_a_while(folders: list[str], rows: int) -> None:
    readers = _opened(folders)
    plan = _plan(readers, [0.5**i for i in range(len(folders))], rows, _WARM_UP + 200)
    before = None
    for step in range(plan.steps):
        if step == _WARM_UP:
            before = allocated()
        batch(readers, plan, step)
    after = allocated()
    print(json.dumps(None if before is None or after is None else (after - before) / 1e6))


def _prepare(text: str, tokenizer: str, length: int, root: str, processes: int) -> None:
    ensure_rows({"text": text}, tokenizer, length, root, how={"processes": processes})


if __name__ == "__main__":
    _name, *_given = json.loads(sys.argv[1])
    {"serving": _serve_a_while, "preparing": _prepare}[_name](*_given)
