"""`evaluate` with the harness's tasks, windows, groups and a system: rows beside those of the sources, and nothing asked twice."""

import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, write_corpus

from cptjax.main import main

pytest.importorskip("lm_eval")
sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
from harness_files import write_tasks  # noqa: E402

pytestmark = pytest.mark.slow


def test_tasks_windows_and_groups_stand_beside_the_sources(shared_data, tmp_path, monkeypatch, capfd):
    corpus = write_corpus(tmp_path / "corpus.jsonl.gz", 120)
    with gzip.open(corpus, "rt", encoding="utf-8") as stream:
        records = [json.loads(line) | {"kind": f"k{n % 2}"} for n, line in enumerate(stream)]
    records += [
        {"id": f"long{n}", "kind": "long", "text": " ".join(r["text"] for r in records[n::3])} for n in range(3)
    ]
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    folder = tmp_path / "evaluation"
    story = str(shared_data / "stories260K")
    experts = {"centroids": "centroids.npy", "experts": [story, story]}
    described = {"router": {"prefix_tokens": 8}, "embedder": {"checkpoint": story}, **experts}
    (tmp_path / "system.json").write_text(json.dumps(described), encoding="utf-8")
    np.save(tmp_path / "centroids.npy", np.stack([np.ones(64), -np.ones(64)]))
    settings = {
        "CHECKPOINTS": {"story": story, "split": str(tmp_path / "system.json")},
        "SOURCES": {"prose": str(text)},
        "OUTPUT_DIR": str(folder),
        "SEQUENCE_LENGTH": 64,
        "VALIDATION_FRACTION": 0.3,
        "SAMPLES": 0,
        "STRIDE": 16,
        "GROUP_BY": {"prose": "kind"},
        "TASKS": ["tiny_choices", "tiny_written"],
        "TASK_FOLDER": str(write_tasks(tmp_path / "tasks")),
        "TASK_LIMIT": 4,
    }
    command = ["--gin_file=gin/jobs/evaluate.gin", *(f"--gin.{name}={value!r}" for name, value in settings.items())]
    monkeypatch.chdir(ROOT)
    assert main(command) == 0
    printed = capfd.readouterr().out
    rows = [json.loads(line) for line in (folder / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()]
    value = {(row["suite"], row["subset"], row["metric"]): row["value"] for row in rows}
    assert {row["suite"] for row in rows} == {"loss", "loss_in_windows", "loss_by_field", "after_prefix", "harness"}
    assert value["loss", "prose", "perplexity"] == pytest.approx(math.exp(value["loss", "prose", "loss"]))
    assert value["loss_in_windows", "prose", "loss"] < value["loss", "prose", "loss"]  # more context
    groups = {row["subset"]: row["n"] for row in rows if (row["suite"], row["metric"]) == ("loss_by_field", "loss")}
    assert set(groups) >= {"prose[kind=k0]", "prose[kind=k1]"}
    assert sum(groups.values()) == next(row["n"] for row in rows if row["suite"] == "loss")
    accuracy = next(row for row in rows if row["subset"] == "tiny_choices" and row["metric"] == "acc")
    assert accuracy["n"] == 4 and 0 <= accuracy["value"] <= 1 and "tiny_choices acc" in printed
    after = {
        row["checkpoint"]: row["value"] for row in rows if (row["suite"], row["metric"]) == ("after_prefix", "loss")
    }
    assert after["split"] == pytest.approx(after["story"], abs=1e-9) and "prose, after prefix" in printed
    assert main(command) == 0
    again = capfd.readouterr().out
    assert "finished; nothing to do" in again and "tiny_choices acc" in again
