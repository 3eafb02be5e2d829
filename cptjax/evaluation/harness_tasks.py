"""Tasks of the lm-evaluation-harness for the checkpoints of an evaluation: run once, kept, and made into rows.

<OUTPUT_DIR>/harness/<label>/<task>.json holds what one checkpoint made of one name in TASKS, under which settings.
"""

import dataclasses
import json
import logging
import math
import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh

from cptjax.checkpoints.digests import digest_file, files_of
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.harness_rows import SUITE, task_rows
from cptjax.evaluation.own_samples import Model
from cptjax.files import read_json, write_file
from cptjax.watching import Watch

_BOOTSTRAPS = 1000  # by the harness, of what is no mean


@dataclasses.dataclass(frozen=True)
class HarnessTasks:
    """What TASKS names, and how it is asked.

    Attributes:
        names: of tasks, groups or tags.
        folder: where task files (.yaml) are besides the harness's own. They may run code: Python that they name.
        shots: examples before each question; None: as the task says, and so where the task's file fixes none at all.
        limit: questions of each task, the first ones; None: all.
    """

    names: Sequence[str] | str = ()
    folder: str | None = None
    shots: float | None = None
    limit: float | None = None

    def __post_init__(self):
        names = [self.names] if isinstance(self.names, str) else list(self.names)
        object.__setattr__(self, "names", tuple(dict.fromkeys(names)))
        for field, macro, least in (("shots", "TASK_SHOTS", 0), ("limit", "TASK_LIMIT", 1)):
            if (value := getattr(self, field)) is not None:
                object.__setattr__(self, field, whole_number(value, macro, minimum=least))


class Harness:
    """The harness, with the tasks that are asked for found in it."""

    def __init__(self, tasks: HarnessTasks, own_tasks: bool = True):
        """Looks the names up; no data is read.

        Args:
            own_tasks: whether the harness's own tasks are there besides the folder's; reading their index takes seconds.

        Raises:
            ConfigurationError: lm-eval is not installed, there is no such folder, or no such task.
        """
        try:
            import lm_eval
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise ConfigurationError(
                f"TASKS names tasks of the lm-evaluation-harness, and {error.name} is not installed.\n"
                "  pip install -e '.[harness]'; or leave TASKS out."
            ) from error
        logging.getLogger("lm_eval").setLevel(logging.WARNING)
        folder = None if tasks.folder is None else epath.Path(tasks.folder).expanduser()
        if folder is not None and not folder.is_dir():
            raise ConfigurationError(f"TASK_FOLDER = '{tasks.folder}' is not a folder.")
        self.tasks, self.version = tasks, lm_eval.__version__
        self._manager = TaskManager(include_path=None if folder is None else str(folder), include_defaults=own_tasks)
        if unknown := [name for name in tasks.names if name not in self._manager.task_index]:
            near = [name for name in self._manager.all_tasks if unknown[0].lower() in name.lower()][:8]
            raise ConfigurationError(
                f"TASKS names {unknown[0]!r}, which is no task, group or tag of lm-eval {self.version}"
                + (f" or of '{folder}'" if folder is not None else "")
                + (f".\n  There is {', '.join(near)}." if near else ".")
            )
        files = [] if folder is None else [(name, digest_file(folder / name).sha256) for name in files_of(folder)]
        self._settings = {"lm_eval": self.version, "shots": tasks.shots, "limit": tasks.limit, "files": dict(files)}

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of every checkpoint, plain data."""
        return {"names": list(self.tasks.names), **self._settings}

    def settings(self, one: Compared, dtype: str) -> dict[str, Any]:
        """All that decides what is kept of a checkpoint, plain data."""
        return {
            **self._settings,
            "checkpoint": one.opened.identity,
            "tokenizer": one.tokenizer.fingerprint,
            "dtype": dtype,
        }

    def run(self, name: str, model: Model, one: Compared, mesh: Mesh, watch: Watch) -> dict[str, Any]:
        """What one of the names gives: for each of its tasks the numbers, and each question's share in them.

        Raises:
            CptjaxError: the harness cannot read the task's data.
        """
        from lm_eval import simple_evaluate

        # It would fork this process, in which JAX runs, for bootstraps of what is no mean.
        os.environ.setdefault("DISABLE_MULTIPROC", "1")
        from cptjax.evaluation.harness import HarnessModel

        try:
            loaded = self._manager.load([name])
        except Exception as error:  # of data sets, of their files, of a hub: whatever it is, the task is not there
            raise CptjaxError(
                f"the task {name!r} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0]}\n"
                "  Its data come from the Hugging Face Hub unless its file says otherwise (TASK_FOLDER)."
            ) from error
        found = simple_evaluate(
            model=HarnessModel(model, one.tokenizer, mesh, watch),
            tasks=list(loaded["tasks"].values()) if not loaded["groups"] else [name],
            task_manager=self._manager,
            num_fewshot=self.tasks.shots,
            limit=self.tasks.limit,
            bootstrap_iters=_BOOTSTRAPS,
        )
        return _with_numbers({task: _numbers(found, task) for task in found["results"]})


def harness_results(
    harness: Harness,
    compared: Sequence[Compared],
    base: Compared,
    load: Callable[[Compared], Model],
    dtype: str,
    folder: epath.Path,
    mesh: Mesh,
    seed: int,
    write: bool,
    say: Callable[[str], None],
    watch: Watch,
) -> list[dict[str, Any]]:
    """The rows of evaluation.jsonl for all tasks and checkpoints. What `folder` has of them already is not run again.

    Args:
        dtype: that `load`ed models compute in.
        seed: of the bootstrap of changes; write: whether this process keeps what it finds.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in compared:
        model, settings, found[one.label] = None, harness.settings(one, dtype), {}
        for name in harness.tasks.names:
            path = folder / SUITE / _file_name(one.label) / f"{_file_name(name)}.json"
            kept = read_json(path) if path.exists() else {}
            if kept.get("settings") != settings:
                model = load(one) if model is None else model
                kept = {"settings": settings, "tasks": harness.run(name, model, one, mesh, watch)}
                if write:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_file(path, json.dumps(kept) + "\n")
            found[one.label] |= _with_numbers(kept["tasks"])
        for task, numbers in found[one.label].items():
            shown = (f"{metric} {of['value']:.4f}" for metric, of in numbers.items())
            say(f"  {one.label}, {task}: {', '.join(shown)} ({max(of['n'] for of in numbers.values()):,} questions)")
    return [
        row
        for one in compared
        for task, numbers in found[one.label].items()
        for row in task_rows(one, task, numbers, None if one is base else found[base.label].get(task), seed)
    ]


def _file_name(name: str) -> str:
    return urllib.parse.quote(name, safe=" ")


def _with_numbers(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Those that have a number: a group that does not say how it is averaged (aggregate_metric_list) has none."""
    return {task: numbers for task, numbers in tasks.items() if numbers}


def _numbers(found: Mapping[str, Any], task: str) -> dict[str, Any]:
    """By metric of a task (or group): its value, the harness's standard error, over how many questions, and each one's share
    where the value is their mean."""
    results, numbers = found["results"][task], {}
    for key, value in results.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = results.get(f"{metric}_stderr,{kind}")
        samples = [each for each in found["samples"].get(task, ()) if each["filter"] == kind and metric in each]
        shares = [each[metric] for each in sorted(samples, key=lambda each: each["doc_id"])]
        plain = bool(shares) and all(isinstance(share, int | float) for share in shares)
        averaged = plain and math.isclose(sum(shares) / len(shares), value, rel_tol=1e-9, abs_tol=1e-12)
        numbers[metric if kind == "none" else f"{metric}/{kind}"] = {
            "value": float(value),
            "error": float(error) if isinstance(error, int | float) and math.isfinite(error) else None,
            "n": len(shares) or int(results.get("sample_len", 0)),
            "shares": [float(share) for share in shares] if averaged else None,
        }
    return numbers
