"""Text into tokens and rows by us, and by `datasets.map` with the same tokenizer and as many processes, taking turns.

Each turn is a process of its own with a fresh folder, so that nothing is cached; seconds count from when everything is
imported there. What is timed:

- ours, tokenizing: the chunks of the source are read, tokenized and written as token files (`tokenize_chunks`).
- ours, everything: `ensure_rows`: the scan with its split by near-duplicates, tokenizing, packing, rows and manifest, and the
  start of the process that does it.
- datasets: `load_dataset("json")` (read, written as Arrow), then `map(tokenize, batched=True)` (tokenized, written as Arrow);
  and as the usual next step `map(group_texts)`, which joins the tokens of 1000 documents and cuts them into rows.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cptjax.benchmarks.bpe import train_bpe
from cptjax.configuration.values import whole_number
from cptjax.data.prepare import ensure_rows
from cptjax.data.scan import survey
from cptjax.data.sources import documents, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizing import Work, tokenize_chunks
from cptjax.errors import CptjaxError
from cptjax.processes import child_environment

_TURNS = ("datasets", "ours_tokenizing", "ours_everything")


def prepare_peer(
    text: str,
    processes: float = 2,
    length: float = 2048,
    vocabulary: float = 32000,
    sample_bytes: float = 1e7,
    repeats: float = 3,
) -> dict[str, Any]:
    """Times them, after checking that they count the same tokens.

    Args:
        text: a JSON Lines file with a "text" in each record.
        length: tokens in a row.
        vocabulary, sample_bytes: of the byte-level BPE, and how much of the text it is trained on.
        repeats: turns of each.

    Returns:
        Medians: seconds and cores' seconds (all processes together) of each, tokens in a second, and three ratios, ours over
        theirs: `ratio_tokenizing` (reading, tokenizing, writing), `ratio_tokenizing_map_alone` (theirs without
        `load_dataset`), `ratio_everything` (rows and all, theirs with `group_texts`; ours splits by near-duplicates too).

    Raises:
        CptjaxError: the two do not count the same tokens, or one of them failed.
    """
    processes, length, repeats = (
        whole_number(value, name, minimum=1)
        for value, name in ((processes, "PROCESSES"), (length, "LENGTH"), (repeats, "REPEATS"))
    )
    turns: dict[str, list[dict]] = {name: [] for name in _TURNS}
    with tempfile.TemporaryDirectory(prefix="cptjax-benchmark-") as folder:
        vocabulary = whole_number(vocabulary, "VOCABULARY", minimum=257)
        tokenizer = train_bpe(_sample(text, sample_bytes), vocabulary, Path(folder) / "tokenizer")
        for turn in range(repeats):
            for name in _TURNS:
                own = Path(folder) / f"{name}-{turn}"
                own.mkdir()
                turns[name].append(_run(name, text, tokenizer, processes, length, own))
    counted = {name: {turn["tokens"] for turn in each} for name, each in turns.items()}
    if len(set.union(*counted.values())) > 1:
        raise CptjaxError(f"the two do not count the same tokens: {counted}.")

    def median(name: str, field: str) -> float:
        return statistics.median(turn[field] for turn in turns[name])

    seconds = {
        "ours_tokenizing": median("ours_tokenizing", "seconds"),
        "ours_everything": median("ours_everything", "seconds"),
        "datasets_load": median("datasets", "load"),
        "datasets_map": median("datasets", "map"),
        "datasets_group_texts": median("datasets", "group_texts"),
    }
    loaded_and_mapped = seconds["datasets_load"] + seconds["datasets_map"]
    tokens = turns["datasets"][0]["tokens"]
    return {
        "documents": turns["datasets"][0]["documents"],
        "tokens": tokens,
        "processes": processes,
        **{f"seconds_{name}": value for name, value in seconds.items()},
        **{f"core_seconds_{name}": median(name, "core_seconds") for name in _TURNS},
        "tokens_per_second_ours_tokenizing": tokens / seconds["ours_tokenizing"],
        "tokens_per_second_ours_everything": tokens / seconds["ours_everything"],
        "tokens_per_second_datasets": tokens / loaded_and_mapped,
        "ratio_tokenizing": loaded_and_mapped / seconds["ours_tokenizing"],
        "ratio_tokenizing_map_alone": seconds["datasets_map"] / seconds["ours_tokenizing"],
        "ratio_everything": (loaded_and_mapped + seconds["datasets_group_texts"]) / seconds["ours_everything"],
        "datasets": version("datasets"),
        "tokenizers": version("tokenizers"),
    }


def _sample(text: str, most: float) -> list[str]:
    """About so many bytes of documents from all over the file."""
    found = list(documents(find_source("text", text)))
    stride = max(1, round(sum(document.size for document in found) / most))
    return [document.text for document in found[::stride]]


def _run(name: str, *given: object) -> dict[str, Any]:
    """One turn in a process of its own; what it printed last."""
    folder = str(given[-1])
    settings = {
        "HF_HOME": folder,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",  # one process a core already
    }
    command = [sys.executable, "-m", "cptjax.benchmarks.prepare_peer", json.dumps([name, *map(str, given)])]
    done = subprocess.run(command, env=child_environment(settings), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise CptjaxError(f"the benchmark's part {name!r} failed:\n  " + "\n  ".join(done.stderr.splitlines()[-8:]))
    return json.loads(done.stdout.splitlines()[-1])


# --- What follows runs in the turns' own processes ---


def _datasets(text: str, tokenizer: str, processes: int, length: int, folder: str) -> dict[str, Any]:
    import datasets
    from tokenizers import Tokenizer

    datasets.disable_progress_bars()
    opened = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")

    def tokenize(batch: dict) -> dict:
        return {"input_ids": [each.ids for each in opened.encode_batch_fast(batch["text"], add_special_tokens=False)]}

    def group_texts(batch: dict) -> dict:
        joined = [token for ids in batch["input_ids"] for token in ids]
        return {"input_ids": [joined[i : i + length] for i in range(0, len(joined) // length * length, length)]}

    many = processes if processes > 1 else None
    seconds, core_seconds = {}, _core_seconds()
    read = _timed(
        seconds, "load", lambda: datasets.load_dataset("json", data_files=text, split="train", cache_dir=folder)
    )
    columns = read.column_names
    found = _timed(seconds, "map", lambda: read.map(tokenize, batched=True, num_proc=many, remove_columns=columns))
    core_seconds = _core_seconds() - core_seconds
    _timed(seconds, "group_texts", lambda: found.map(group_texts, batched=True, num_proc=many))
    import pyarrow.compute

    tokens = pyarrow.compute.sum(pyarrow.compute.list_value_length(found.data.column("input_ids"))).as_py()
    # We count an end for each document, which datasets leaves to whoever maps.
    return {**seconds, "core_seconds": core_seconds, "tokens": tokens + len(found), "documents": len(found)}


def _ours_tokenizing(text: str, tokenizer: str, processes: int, length: int, folder: str) -> dict[str, Any]:
    source, counted = find_source("text", text), []
    chunks = survey(source, open_tokenizer(tokenizer)).chunks
    seconds, core_seconds = {}, _core_seconds()
    _timed(
        seconds,
        "seconds",
        lambda: tokenize_chunks(
            Work(source, tokenizer), chunks, Path(folder), processes, lambda *heard: counted.append(heard[1])
        ),
    )
    return {**seconds, "core_seconds": _core_seconds() - core_seconds, "tokens": sum(counted)}


def _ours_everything(text: str, tokenizer: str, processes: int, length: int, folder: str) -> dict[str, Any]:
    def prepare():
        how = {"processes": processes}
        return ensure_rows({"text": text}, tokenizer, length, folder, how=how, report=lambda line: None)

    seconds, core_seconds = {}, _core_seconds()
    prepared = _timed(seconds, "seconds", prepare)["text"]
    held_out = prepared.validation_manifest.tokens if prepared.validation_manifest else 0
    tokens = prepared.train_manifest.tokens + held_out
    return {**seconds, "core_seconds": _core_seconds() - core_seconds, "tokens": tokens}


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    found = work()
    seconds[name] = time.perf_counter() - begin
    return found


def _core_seconds() -> float:
    """What this process and those it has waited for have computed so far."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    _name, _text, _tokenizer, _processes, _length, _folder = json.loads(sys.argv[1])
    _turn = {"datasets": _datasets, "ours_tokenizing": _ours_tokenizing, "ours_everything": _ours_everything}[_name]
    print(json.dumps(_turn(os.path.abspath(_text), _tokenizer, int(_processes), int(_length), _folder)))
