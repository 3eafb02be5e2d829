"""What a study knows of its steps: which are done, under which settings, and how long each attempt took.

`<study>/steps/<name>.json` is written when a step ends, however it ends; the step's own folder is its job's.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import read_json, write_file
from cptjax.studies.step import STUDY, Step

STEPS = "steps"


@dataclasses.dataclass(frozen=True)
class PlannedStep:
    """A step whose command was read and checked.

    Attributes:
        job: what it runs; arguments: its command's flags; folder: where what it makes goes.
        settings: every value it reads, as gin text, the study's own folder written as {study}.
        digest: sha256 of its settings and of those of the steps it uses, and they of theirs: equal digests, equal work.
        record: what the ledger says of it, None before its first attempt.
    """

    step: Step
    job: str
    arguments: tuple[str, ...]
    folder: epath.Path
    settings: str
    digest: str
    record: Mapping[str, Any] | None

    @property
    def done(self) -> bool:
        """Whether it was done under just these settings, and what it made is still there."""
        return bool(self.record and self.record["done"] and self.record["digest"] == self.digest and self._made())

    @property
    def changed(self) -> bool:
        """Whether it was done under other settings, and what it made then is in the way."""
        return bool(self.record and self.record["done"] and self.record["digest"] != self.digest and self._made())

    def _made(self) -> bool:
        return self.step.output is None or self.folder.exists()


def plan_steps(steps: Sequence[Step], study: epath.Path, permissions: Sequence[str] = ()) -> list[PlannedStep]:
    """Reads and checks every step's command before any of them runs.

    Raises:
        ConfigurationError: what one of the commands would be refused for, with the step's name.
    """
    planned: dict[str, PlannedStep] = {}
    for step in steps:
        arguments = (*permissions, *step.arguments(str(study)))
        try:
            configured = configure(parse_command(arguments))
        except ConfigurationError as error:
            raise ConfigurationError(f"step {step.name!r} of the study: {error}") from None
        settings = configured.settings.replace(str(study), "{" + STUDY + "}")
        decisive = [settings, *(planned[used].digest for used in step.uses())]
        digest = hashlib.sha256("\n".join(decisive).encode()).hexdigest()
        record = _read(study, step.name)
        planned[step.name] = PlannedStep(step, configured.job, arguments, study / step.name, settings, digest, record)
    return list(planned.values())


def refuse_changed(steps: Sequence[PlannedStep]) -> None:
    """Refuses to go on where a finished step would be another one now: its results would pass for the new one's.

    Raises:
        ConfigurationError: each such step, what is different, and what to remove.
    """
    changed = [step for step in steps if step.changed]
    if not changed:
        return
    lines = []
    for step in changed:
        then, now = step.record["settings"].splitlines(), step.settings.splitlines()
        differences = [
            line for line in difflib.unified_diff(then, now, n=0, lineterm="") if line[:3] not in ("---", "+++")
        ]
        shown = [f"      {line}" for line in differences if line[0] in "+-"][:8]
        lines += [f"  {step.step.name} (in {step.folder})", *(shown or ["      a step that it uses has changed"])]
    names = ", ".join(repr(step.step.name) for step in changed)
    raise ConfigurationError(
        f"the study in '{changed[0].folder.parent}' was done under other settings: {names}.\n"
        + "\n".join(lines)
        + "\n  Name another OUTPUT_DIR; or remove the folders named here, and these steps are run again."
    )


def write_attempt(study: epath.Path, step: PlannedStep, attempt: Mapping[str, Any]) -> None:
    """Records one attempt (`started`, `seconds`, `code`, ...) at a step; it is done when the code is 0."""
    record = _read(study, step.step.name)
    same = record is not None and record["digest"] == step.digest
    content = {
        "name": step.step.name,
        "job": step.job,
        "done": attempt["code"] == 0,
        "digest": step.digest,
        "command": ["python", "-m", "cptjax.main", *step.arguments],
        "attempts": [*(record["attempts"] if same else []), dict(attempt)],
        "settings": step.settings,
    }
    folder = study / STEPS
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / f"{step.step.name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _read(study: epath.Path, name: str) -> dict[str, Any] | None:
    path = study / STEPS / f"{name}.json"
    if not path.exists():
        return None
    record = read_json(path)
    if not isinstance(record, dict) or not {"done", "digest", "settings", "attempts"} <= set(record):
        raise CptjaxError(f"{path} is damaged: it is not the record of a step.\n  Remove it to run the step again.")
    return record
