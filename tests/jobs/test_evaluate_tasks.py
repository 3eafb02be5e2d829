"""`evaluate` with the harness's tasks, windows and groups: rows beside those of the sources, and nothing asked twice."""

import gzip
import json
import math
import sys
from pathlib import Path

import pytest
from commands import run_main, write_corpus

pytest.importorskip("lm_eval")
sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
from harness_files import write_tasks  # noqa: E402

pytestmark = pytest.mark.slow


def test_tasks_windows_and_groups_stand_beside_the_sources(shared_data, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.jsonl.gz", 120)
    with gzip.open(corpus, "rt", encoding="utf-8") as stream:
        records = [json.loads(line) | {"kind": f"k{n % 2}"} for n, line in enumerate(stream)]
    records += [
        {"id": f"long{n}", "kind": "long", "text": " ".join(r["text"] for r in records[n::3])} for n in range(3)
    ]
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    folder = tmp_path / "evaluation"
    settings = [
        "gin/jobs/evaluate.gin",
        f"CHECKPOINTS={{'story': '{shared_data / 'stories260K'}'}}",
        f"SOURCES={{'prose': '{text}'}}",
        f"OUTPUT_DIR='{folder}'",
        "SEQUENCE_LENGTH=64",
        "VALIDATION_FRACTION=0.3",
        "SAMPLES=0",
        "STRIDE=16",
        "GROUP_BY={'prose': 'kind'}",
        "TASKS=['tiny_choices', 'tiny_written']",
        f"TASK_FOLDER='{write_tasks(tmp_path / 'tasks')}'",
        "TASK_LIMIT=4",
    ]
    printed = run_main(*settings)
    rows = [json.loads(line) for line in (folder / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()]
    value = {(row["suite"], row["subset"], row["metric"]): row["value"] for row in rows}
    assert {row["suite"] for row in rows} == {"loss", "loss_in_windows", "loss_by_field", "harness"}
    assert value["loss", "prose", "perplexity"] == pytest.approx(math.exp(value["loss", "prose", "loss"]))
    assert value["loss_in_windows", "prose", "loss"] < value["loss", "prose", "loss"]  # more context
    groups = {row["subset"]: row["n"] for row in rows if (row["suite"], row["metric"]) == ("loss_by_field", "loss")}
    assert set(groups) >= {"prose[kind=k0]", "prose[kind=k1]"}
    assert sum(groups.values()) == next(row["n"] for row in rows if row["suite"] == "loss")
    accuracy = next(row for row in rows if row["subset"] == "tiny_choices" and row["metric"] == "acc")
    assert accuracy["n"] == 4 and 0 <= accuracy["value"] <= 1 and "tiny_choices acc" in printed
    again = run_main(*settings)
    assert "finished; nothing to do" in again and "tiny_choices acc" in again
