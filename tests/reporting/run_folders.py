"""Folders as runs leave them, written in milliseconds: what a report reads, without the training."""

import json
from pathlib import Path

from cptjax.checkpoints.digests import write_digests
from cptjax.checkpoints.lineage import Exposure, LearningRate, Lineage, Origin, Parameters, RunRecord, StageRecord

STEPS, BATCH = 60, 1024
LOSSES = {"general": (3.6, 3.9), "target": (4.6, 3.5), "never_replayed": (3.2, 4.1)}  # before, after
WEIGHTS = ({"general": 1.0}, {"target": 0.75, "general": 0.25})
CONFIG = """# The job 'train', resolved: every value it reads and where that was set.

JOB = 'train'
OUTPUT_DIR = {output!r}  # the command line
REPLAY = 0.25  # the command line
TARGET = 'python:source#4e6'  # gin/quickstart.gin:24
SOURCES = {{
    'general': '/data/<b>general</b>.jsonl',
}}  # the command line
"""


def lineage(steps: int = STEPS, run: str = "/runs/first") -> Lineage:
    """A base from Hugging Face and one run of two stages."""
    tokens = steps * BATCH
    stages = tuple(
        StageRecord(name, tokens // 2, tokens, 10**9, weights)
        for name, weights in zip(("first", "second"), WEIGHTS, strict=True)
    )
    exposures = {name: Exposure("0123456789abcdef", steps, tokens // 2, 0.5) for name in ("general", "target")}
    rates = LearningRate(1e-3, 1e-5, "0.001 -> 1e-05 cosine over 60 steps")
    record = RunRecord("initialize", run, "c0ffee" * 6, stages, exposures, rates, 0, "/models/base")
    return Lineage(Origin("hugging_face", "/models/base", "ab" * 32, Parameters(1000, 800, 1000)), (record,))


def evaluation_line(step: int, share: float | None = None, losses: dict = LOSSES) -> dict:
    """The held-out losses when `share` of the way from before to after is gone."""
    share = step / STEPS if share is None else share
    found = {"step": step}
    for name, (before, after) in losses.items():
        loss = before + share * (after - before)
        found |= {f"validation/{name}/loss": loss, f"validation/{name}/bits_per_byte": 0.9 * loss}
    return found


def step_line(step: int, **changed) -> dict:
    line = {
        "step": step,
        "loss": 4.0 - step / 100,
        "learning_rate": 1e-3 * (1 - step / STEPS),
        "gradient_norm": 1.0,
        "skipped": 0.0,
        "tokens_read": step * BATCH,
        "tokens_per_second": 20000.0,
    }
    return {**line, **changed}


def metrics(steps: int = STEPS, every: int = 20) -> list[dict]:
    """The lines that a run of so many steps logs."""
    lines = [evaluation_line(0)]
    for step in range(1, steps + 1):
        lines.append(step_line(step))
        if step % every == 0:
            lines.append(evaluation_line(step))
    return lines


def write_run(
    folder: Path, lines: list[dict] | None = None, *, finished: bool = True, saved: int | None = STEPS
) -> Path:
    """A run's folder; `saved` is the step of its checkpoint, None for no checkpoint."""
    folder.mkdir(parents=True)
    start = {
        "time": "2026-01-02T03:04:05+00:00",
        "command": ["/here/cptjax/main.py", "--gin_file=gin/recipes/rewarm.gin", f"--gin.OUTPUT_DIR='{folder}'"],
        "directory": "/here",
        "host": "machine",
        "git": {"commit": "c0ffee" * 6, "dirty": True},
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "devices": {"platform": "cpu", "kind": "cpu", "devices": 1, "processes": 1},
    }
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    (folder / "config.gin").write_text(CONFIG.format(output=str(folder)))
    (folder / "plan.txt").write_text("steps     60 of 8 rows x 128 = 1,024 tokens\n")
    data = {name: source(name) for name in LOSSES}
    (folder / "data.json").write_text(json.dumps(data))
    write_metrics(folder, metrics() if lines is None else lines)
    if saved is not None:
        write_checkpoint(folder, saved)
    if finished:
        (folder / "finished.json").write_text(json.dumps({"job": "train", "steps": STEPS, "tokens": STEPS * BATCH}))
    return folder


def source(name: str) -> dict:
    return {
        "given": f"/data/{name}.jsonl",
        "role": "evaluated only" if name == "never_replayed" else "trained",
        "files": [{"path": f"/data/{name}.jsonl", "sha256": "ab" * 32}],
        "fingerprint": "0123456789abcdef",
        "documents": 100,
        "tokens": 50_000,
        "bytes": 150_000,
        "held_out_documents": 3,
        "held_out_tokens": 4000,
    }


def write_metrics(folder: Path, lines: list[dict]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_checkpoint(folder: Path, step: int, ancestry: Lineage | None = None) -> None:
    """A checkpoint without arrays: its metadata, and the digest that makes it count."""
    path = folder / "checkpoints" / f"{step:09d}"
    path.mkdir(parents=True)
    stages = [
        {"name": name, "steps": STEPS // 2, "weights": weights, "parts": {}}
        for name, weights in zip(("first", "second"), WEIGHTS, strict=True)
    ]
    content = {
        "lineage": (ancestry or lineage(step, str(folder))).to_json(),
        "verb": "initialize",
        "plan": {"steps": STEPS, "data": {"stages": stages}},
        "tokens": step * BATCH,
    }
    (path / "metadata.json").write_text(json.dumps({"format": 1, "step": step, "arrays": {}, "metadata": content}))
    write_digests(path)


def evaluation_rows(
    arms: dict[str, dict[str, float]], *, interval: str = "documents, this checkpoint only", changes: bool = True
) -> list[dict]:
    """Rows of an evaluation.jsonl: `arms` holds each checkpoint's loss by domain, the base first."""
    base = next(iter(arms))
    rows = []
    for label, losses in arms.items():
        common = {"checkpoint": label, "step": None, "tokens": None if label == base else 61440, "interval": interval}
        for name, loss in losses.items():
            for metric, factor in (("loss", 1.0), ("bits_per_byte", 0.9)):
                values = {metric: factor * loss}
                if changes and label != base:
                    values[f"{metric}_change"] = factor * (loss - arms[base][name])
                for each, value in values.items():
                    bounds = {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 40}
                    rows.append({**common, "suite": "loss", "subset": name, "metric": each, **bounds})
        own = {"loss": 3.2} if label == base else {"loss": 3.5, "kl": 0.33}
        for metric, value in own.items():
            bounds = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 128}
            rows.append({**common, "suite": "own_samples", "subset": "base", "metric": metric, **bounds})
    return rows
