"""Jobs are tested as users run them: the command, in a process of its own."""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from free_ports import free_port

from cptjax.reporting.steps import is_measured

ROOT = Path(__file__).parents[2]
LOST, SECONDS = 76, 60  # the exit code where a process is lost, and how soon all end then
_started: list[subprocess.Popen] = []
WORDS = "the cat sat on a mat and saw one small red bird that sang to him all day long so he was glad".split()


def command(*settings: str) -> list[str]:
    """`python -m cptjax.main` with `gin/...` files and NAME=VALUE macros."""
    flags = [f"--gin_file={s}" if s.endswith(".gin") else s if s.startswith("--") else f"--gin.{s}" for s in settings]
    return [sys.executable, "-m", "cptjax.main", *flags]


def environment(devices: int = 1) -> dict[str, str]:
    """This process's environment with so many virtual CPU devices."""
    return {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": str(ROOT)}


def run_main(*settings: str, devices: int = 1, code: int = 0) -> str:
    """Runs the command in the checkout, checks its exit code, and returns all it printed."""
    done = subprocess.run(
        command(*settings), cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=600
    )
    printed = done.stdout + done.stderr
    assert done.returncode == code, f"exit code {done.returncode}, expected {code}:\n{printed[-6000:]}"
    return printed


def write_corpus(path: Path, documents: int, seed: int = 0) -> Path:
    """A small corpus of childish sentences, gzipped JSONL."""
    lines = []
    for n in range(documents):
        words = [WORDS[(seed + 7 * n + 3 * i * i + i) % len(WORDS)] for i in range(30 + (5 * n) % 50)]
        lines.append(
            json.dumps({"id": f"d{n}", "source": "test", "text": f"Once upon a time {n} " + " ".join(words) + "."})
        )
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    return path


def short_run(shared_data: Path, folder: Path, train_tokens: int, eval_every: int) -> list[str]:
    """Settings of a short run of the reuse recipe from the real checkpoint, in steps of 512 tokens, saved every fourth.

    Its corpora and packed rows are made in `folder`.
    """
    general = write_corpus(folder / "general.jsonl.gz", 300)
    target = write_corpus(folder / "target.jsonl.gz", 400, seed=5)
    return [
        "gin/recipes/reuse.gin",
        f"HF_CHECKPOINT='{shared_data / 'stories260K'}'",
        f"GENERAL='{general}'",
        f"TARGET='{target}'",
        f"ROWS_DIR='{folder / 'rows'}'",
        "SEQUENCE_LENGTH=64",
        "BATCH_TOKENS=512",
        f"TRAIN_TOKENS={train_tokens}",
        "BASE_FINAL_LR=5e-4",
        "SAVE_EVERY=2048",
        f"EVAL_EVERY={eval_every}",
    ]


def start(processes: int, *settings: str, devices: int = 2) -> list[subprocess.Popen]:
    """So many processes, of so many devices each, that run the command together."""
    several = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": str(processes)}
    ours = [({**several, "JAX_PROCESS_ID": str(index)} if processes > 1 else {}) for index in range(processes)]
    return [start_one(command(*settings), environment(devices) | settings_of_it) for settings_of_it in ours]


def start_one(words: list[str], environ: dict[str, str]) -> subprocess.Popen:
    """One process, which is ended with the test that started it, if not before."""
    process = subprocess.Popen(
        words, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    _started.append(process)
    return process


def end_started() -> None:
    """Kills what `start_one` has started and still runs, with what it has started itself."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.kill()
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            process.wait()


def training_of(process: subprocess.Popen) -> int:
    """The pid of the training that the supervisor `process`, one of several, has started."""
    (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(pid)


def ends_named(processes: list[subprocess.Popen], began: float, index: int, *words: str) -> None:
    """All end with the code in time, naming the process `index`, lost at `began`, in a message that has `words`."""
    for process in processes:
        printed = process.communicate(timeout=SECONDS)[0]
        assert time.monotonic() - began < SECONDS
        assert process.returncode == LOST, printed[-3000:]
        said = printed[printed.rindex("error: process") :]
        assert f"process {index} of {len(processes)} (host " in said and "goes on from there" in said, said
        assert all(word in said for word in words), said


def kill(processes: list[subprocess.Popen]) -> list[str]:
    """Kills each of several processes outright, its training and its supervisor; returns what they printed."""
    trainings = [training_of(process) for process in processes]
    for pid in [process.pid for process in processes] + trainings:
        os.kill(pid, signal.SIGKILL)
    return [process.communicate()[0] for process in processes]


def wait_for_steps(processes: list[subprocess.Popen], run: Path, steps: int) -> None:
    """Returns once so many steps are logged; fails with what the first process printed if one of them ends before."""
    metrics, end = run / "metrics.jsonl", time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count('"loss"') >= steps):
        running = all(process.poll() is None for process in processes)
        assert running and time.monotonic() < end, "" if running else processes[0].communicate()[0][-3000:]
        time.sleep(0.02)


def read(run: Path) -> list[str]:
    """The hash of the rows of each step."""
    return [line["batch_hash"] for line in logged(run) if "batch_hash" in line]


def logged(run: Path) -> list[dict]:
    """The lines of a run's metrics, without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if not is_measured(name)} for line in lines]
