"""What a study knows of its steps: which are done, under which settings, and how long each attempt took.

`<study>/steps/<name>.json` is written when an attempt at a step begins and when it ends, however it ends; the step's own
folder is its job's. An attempt is known by the moment it began; it tells which attempts made what the step uses, so that
what was built on a step that was redone since is seen.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
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
        used: by step that it uses, when the attempt began that made what is there now; None: that step is not done.
        record: what the ledger says of it, None before its first attempt.
    """

    step: Step
    job: str
    arguments: tuple[str, ...]
    folder: epath.Path
    settings: str
    digest: str
    used: Mapping[str, str | None]
    record: Mapping[str, Any] | None

    @property
    def done(self) -> bool:
        """Whether it was done under just these settings from what the steps it uses hold now, and is still there."""
        as_now = self.record and self.record["done"] and self.record["digest"] == self.digest
        return bool(as_now and self.made and self._of_what_is_there())

    @property
    def changed(self) -> bool:
        """Whether it was done under other settings, and what it made then is in the way."""
        return bool(self.record and self.record["done"] and self.record["digest"] != self.digest and self.made)

    @property
    def outdated(self) -> bool:
        """Whether what it made, or began to make, is of another attempt at a step it uses than the one there now."""
        return bool(self.record and self.made and not self._of_what_is_there())

    @property
    def in_the_way(self) -> str:
        """What is to be removed so that the step is run anew."""
        record = f"{self.folder.parent / STEPS / self.step.name}.json"
        return str(self.folder) if self.step.output is not None else f"what {self.step.name!r} wrote, and {record}"

    @property
    def made(self) -> bool:
        """Whether there is something of it, whole or not; of one that says itself where it writes nobody knows."""
        return self.step.output is None or self.folder.exists()

    def _of_what_is_there(self) -> bool:
        then = self.record["attempts"][-1].get("used", {})  # older records do not tell
        return all(now is not None and then.get(name, now) == now for name, now in self.used.items())


def plan_steps(steps: Sequence[Step], study: epath.Path, permissions: Sequence[str] = ()) -> list[PlannedStep]:
    """Reads and checks every step's command before any of them runs.

    Raises:
        ConfigurationError: what one of the commands would be refused for, with the step's name.
        CptjaxError: a step's record is damaged.
    """
    planned: dict[str, PlannedStep] = {}
    for step in steps:
        arguments = (*permissions, *step.arguments(str(study)))
        anywhere = (*permissions, *step.arguments("{" + STUDY + "}"))  # the same work wherever the study's folder is
        try:
            job = configure(parse_command(arguments)).job
            settings = configure(parse_command(anywhere)).settings
        except ConfigurationError as error:
            raise ConfigurationError(f"step {step.name!r} of the study: {error}") from None
        uses = [planned[name] for name in step.uses()]
        digest = hashlib.sha256("\n".join([settings, *(used.digest for used in uses)]).encode()).hexdigest()
        used = {each.step.name: each.record["attempts"][-1]["started"] if each.done else None for each in uses}
        record = _read(study, step.name)
        planned[step.name] = PlannedStep(step, job, arguments, study / step.name, settings, digest, used, record)
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
        + f"\n  Name another OUTPUT_DIR; or remove this, and these steps are run again:\n{_to_remove(changed)}"
    )


def refuse_outdated(steps: Sequence[PlannedStep]) -> None:
    """Refuses to go on where a step would be redone, or was, and what others made of it before is still there.

    Raises:
        ConfigurationError: each such step, what it was made of, and what to remove.
    """
    outdated = [step for step in steps if step.outdated]
    if not outdated:
        return
    lines = []
    for step in outdated:
        then = step.record["attempts"][-1].get("used", {})
        for name, now in step.used.items():
            if now is None:
                lines.append(f"  {step.step.name}: made of {name!r}, which is to be run again")
            elif then.get(name, now) != now:
                lines.append(f"  {step.step.name}: made of {name!r} as it was before it was run again ({now})")
    names = ", ".join(repr(step.step.name) for step in outdated)
    raise ConfigurationError(
        f"the study in '{outdated[0].folder.parent}' holds what was made of steps that are no longer there: {names}.\n"
        + "\n".join(lines)
        + "\n  Name another OUTPUT_DIR; or remove (or move away) this, and these steps are run again too:\n"
        + _to_remove(outdated)
    )


def with_dependents(steps: Sequence[PlannedStep], names: Collection[str]) -> list[PlannedStep]:
    """The steps named, and those begun that use them, directly or not: what must be redone when they are."""
    found: list[PlannedStep] = []
    for step in steps:
        uses = {used.step.name for used in found}.intersection(step.step.uses())
        if step.step.name in names or (uses and step.record and step.made):
            found.append(step)
    return found


def _to_remove(steps: Sequence[PlannedStep]) -> str:
    return "\n".join(f"    {step.in_the_way}" for step in steps)


def write_attempt(study: epath.Path, step: PlannedStep, attempt: Mapping[str, Any]) -> None:
    """Records an attempt (`started`, `seconds`, `code`, ...) at a step: once as it begins, its code None, and as it ends.

    The step is done when the code is 0. An attempt that stays at None was killed together with its study.
    """
    record = _read(study, step.step.name)
    earlier = record["attempts"] if record is not None and record["digest"] == step.digest else []
    earlier = [other for other in earlier if other["started"] != attempt["started"]]
    content = {
        "name": step.step.name,
        "job": step.job,
        "done": attempt["code"] == 0,
        "digest": step.digest,
        "command": ["python", "-m", "cptjax.main", *step.arguments],
        "attempts": [*earlier, {**attempt, "used": dict(step.used)}],
        "settings": step.settings,
    }
    folder = study / STEPS
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / f"{step.step.name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def recorded_steps(study: epath.Path) -> list[dict[str, Any]]:
    """What the ledger holds of each step that was begun, in the order of their beginning; [] where there is no ledger."""
    names = [path.name.removesuffix(".json") for path in (study / STEPS).glob("*.json")]
    records = [_read(study, name) for name in names]
    return sorted(records, key=lambda record: record["attempts"][0]["started"])


def _read(study: epath.Path, name: str) -> dict[str, Any] | None:
    path = study / STEPS / f"{name}.json"
    if not path.exists():
        return None
    record = read_json(path)
    needed = {"name", "done", "digest", "command", "settings", "attempts"}
    if not isinstance(record, dict) or not needed <= set(record) or not record["attempts"]:
        raise CptjaxError(f"{path} is damaged: it is not the record of a step.\n  Remove it to run the step again.")
    return record
