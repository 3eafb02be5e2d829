"""A run's folder: what was run, with what, on what.

config.gin     the operative configuration, runnable as it is
run.json       command line, versions, git commit, platform, and every time the run was started
plan.txt       what it said it would do
data.json      each source: its files with their digests, where its rows are, and whether it was trained on
metrics.jsonl, tensorboard/, checkpoints/
finished.json  written last: the run is done
rerun.json     only where another run was run again here: which one, and when (job `reproduce`)
report.html    all of it, to be read
"""

import datetime
import fcntl
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.files import is_local, read_json, write_file

CONFIG = "config.gin"
RUN = "run.json"
PLAN = "plan.txt"
DATA = "data.json"
FINISHED = "finished.json"
PROFILE = "profile"
METRICS = "metrics.jsonl"
RERUN = "rerun.json"
LOCK = ".lock"  # held by the process that works here
_MARKS = (CONFIG, RUN)  # a folder with one of these is a run's folder
INSPECTION = "inspection"  # what `inspect_data` says of the run, also before it is started
_BEFORE_START = ("rows", INSPECTION, LOCK, RERUN)  # what may have been written before `start`
_PACKAGES = (
    "cptjax",
    "jax",
    "jaxlib",
    "libtpu",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "gin-config",
    "array-record",
)


class RunFolder:
    """The folder at `path` (the gin macro OUTPUT_DIR); `start` creates it when it is not there."""

    def __init__(self, path: epath.PathLike):
        """Names the folder and checks that it may be written; writes nothing (a dry run stops here).

        Raises:
            ConfigurationError: the path is a file, or a folder with something in it that is not a run.
        """
        if not os.fspath(path):
            raise ConfigurationError("OUTPUT_DIR is empty: name the folder that the run shall write.")
        self.path = epath.Path(path).expanduser()
        if self.path.exists():
            _refuse_foreign(self.path)

    @property
    def checkpoints(self) -> epath.Path:
        """Where the run's `CheckpointStore` keeps its steps."""
        return self.path / "checkpoints"

    def hold(self) -> IO | None:
        """Keeps every other process out of the folder until the returned file is closed or this process ends.

        Raises:
            ConfigurationError: another process holds it. (A folder in a bucket cannot be held: None.)
        """
        if not is_local(self.path):
            return None
        self.path.mkdir(parents=True, exist_ok=True)
        lock = (self.path / LOCK).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ConfigurationError(
                f"OUTPUT_DIR = '{self.path}' is in use: another process is working in it."
            ) from None
        return lock

    def start(
        self, config: str, command: Sequence[str], devices: Mapping[str, Any], made_by: str | None = None
    ) -> None:
        """Records the start (or the resumption) of the run: `config.gin` and one more entry in `run.json`.

        Args:
            config: the operative configuration as gin text.
            command: the command line, as `sys.argv` has it.
            devices: what the run computes on (platform, kind, number); the caller asks JAX, this module does not.
            made_by: the job, where it makes many such folders and will ask which of them are its own.
        """
        earlier = read_json(self.path / RUN)["starts"] if (self.path / RUN).exists() else []
        start = {
            "time": now(),
            "command": list(command),
            "directory": os.getcwd(),
            "host": platform.node(),
            "git": git_state(),
            "versions": versions(),
            "devices": dict(devices),
            **({"made_by": made_by} if made_by else {}),
        }
        self.path.mkdir(parents=True, exist_ok=True)
        # run.json first: it is what makes this folder a run's folder for whoever looks after a kill in between.
        write_file(self.path / RUN, json.dumps({"starts": [*earlier, start]}, indent=1) + "\n")
        write_file(self.path / CONFIG, config if config.endswith("\n") else config + "\n")

    def write(self, name: str, content: str | bytes) -> None:
        """Writes one file of the folder, whole or not at all."""
        write_file(self.path / name, content)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Marks the run as done; `summary` is what a run started again prints."""
        write_file(self.path / FINISHED, json.dumps({"time": now(), **summary}, indent=1) + "\n")

    def holds(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether the folder holds this very result: a JSON file whose "settings" are these.

        Raises:
            ConfigurationError: it holds one of other settings.
        """
        path = self.path / name
        if not path.exists():
            return False
        earlier, asked = read_json(path)["settings"], json.loads(json.dumps(settings))
        if different := [key for key in asked if asked[key] != earlier.get(key)]:
            raise ConfigurationError(
                f"OUTPUT_DIR = '{self.path}' holds another {path.stem} (other {', '.join(different)}). Name another folder."
            )
        return True

    def finished(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None while it is not."""
        path = self.path / FINISHED
        return read_json(path) if path.exists() else None


def _refuse_foreign(path: epath.Path) -> None:
    if not path.is_dir():
        raise ConfigurationError(
            f"OUTPUT_DIR = '{path}' is a file.\n  Name a folder: a new one, or that of a run to go on with."
        )
    names = sorted(entry.name for entry in path.iterdir())
    # What a kill before or during the very first write leaves behind is ours.
    strange = [name for name in names if name not in _BEFORE_START and not name.endswith(".part")]
    if strange and not any(mark in names for mark in _MARKS):
        shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
        raise ConfigurationError(
            f"OUTPUT_DIR = '{path}' is neither empty nor a run's folder.\n"
            f"  It holds {shown}, and no {RUN}.\n"
            f"  Name a new folder: nothing is written among files that are not the run's own."
        )


def now() -> str:
    """This moment in UTC, as ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            module = sys.modules.get(package)
            if version := getattr(module, "__version__", None):  # cptjax run from a checkout, not installed
                found[package] = version
    return found


@functools.cache
def git_state() -> dict[str, Any] | None:
    """The commit of the checkout that this code runs from and whether files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers, or None where there is no git, no commit yet, or no answer in 10 seconds."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
