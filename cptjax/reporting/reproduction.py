"""What made a run against what is here: its environment, its base, its text; and two runs' numbers against each other."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from cptjax.checkpoints.source import CHECKPOINTS, open_checkpoint
from cptjax.data.sources import content_identity, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import read_json
from cptjax.reporting.folder import DATA, METRICS, RUN, git_state, versions
from cptjax.reporting.metrics import read_metrics

_CLOCK = "tokens_per_second"  # the one logged number that no second run repeats


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that a run's numbers depend on, then and now.

    decisive: without it the run cannot be repeated (its text, its base); otherwise its numbers may differ in the last bits.
    """

    what: str
    then: str
    now: str
    decisive: bool = False

    @property
    def same(self) -> bool:
        return self.then == self.now


def last_start(run: epath.Path) -> dict[str, Any]:
    """What `run.json` says of the run's last start.

    Raises:
        ConfigurationError: there is no run in the folder.
    """
    if not (run / RUN).exists():
        raise ConfigurationError(
            f"'{run}' is not a run's folder: it holds no {RUN}.\n  Name what a run's OUTPUT_DIR was."
        )
    starts = read_json(run / RUN).get("starts")
    if not starts:
        raise CptjaxError(f"{run / RUN} is damaged: it names no start.")
    return starts[-1]


def environment_checks(start: Mapping[str, Any], devices: Mapping[str, Any] | None) -> list[Check]:
    """Python, packages, commit and devices of the start against this process's (`devices`: None does not compare them)."""
    here = versions()
    checks = [
        Check(name, str(start["versions"].get(name, "not installed")), here.get(name, "not installed"))
        for name in dict.fromkeys([*start["versions"], *here])
    ]
    checks.append(Check("commit", _commit(start.get("git")), _commit(git_state())))
    for name, then in start.get("devices", {}).items() if devices is not None else ():
        checks.append(Check(f"devices: {name}", str(then), str(devices.get(name))))
    return checks


def text_checks(run: epath.Path) -> list[Check]:
    """Each source's files as they were read against the files that its name finds here now."""
    if not (run / DATA).exists():
        return []
    checks = []
    for name, source in read_json(run / DATA).items():
        then = {file["sha256"] for file in source["files"]}
        try:
            found = {file["sha256"] for file in content_identity(find_source(name, source["given"]))}
        except CptjaxError as error:
            now = str(error).splitlines()[0]
        else:
            changed = len(then - found)
            now = "as then" if then == found else f"{changed} of them changed or gone, {len(found - then)} new"
        given = source["given"] if isinstance(source["given"], str) else f"{len(source['given'])} paths"
        label = f"text: {name} ({given}, {len(then)} file{'' if len(then) == 1 else 's'})"
        checks.append(Check(label, "as then", now, decisive=True))
    return checks


def base_checks(run: epath.Path) -> list[Check]:
    """What the run started from: its weights' identity then and now. Reads the base's tensors once."""
    if not (run / CHECKPOINTS).is_dir():
        return []
    lineage = open_checkpoint(run).lineage
    if not lineage.runs:  # converted, not trained: the origin is all there is
        started_from, before = lineage.origin.path, dataclasses.replace(lineage, runs=())
    else:
        started_from, before = lineage.runs[-1].started_from, lineage.ancestors
    if not started_from:
        return _random_checks(run)
    path, _, step = started_from.partition(", step ")
    try:
        found = open_checkpoint(path, int(step) if step else None).lineage
        now = "as then" if found.runs == before.runs and found.origin.identity == before.origin.identity else "changed"
    except CptjaxError as error:
        now = str(error).splitlines()[0]
    return [Check(f"base: {started_from}", "as then", now, decisive=True)]


def _random_checks(run: epath.Path) -> list[Check]:
    """A run from random weights is made anew from its seed; the tokenizer it was given must be there."""
    opened = open_checkpoint(run)
    path = opened.metadata.get("plan", {}).get("start", {}).get("tokenizer")
    if not path:
        return []
    try:
        found = open_tokenizer(path).fingerprint
        now = "as then" if found == open_tokenizer(str(opened.model_folder)).fingerprint else "changed"
    except CptjaxError as error:
        now = str(error).splitlines()[0]
    return [Check(f"tokenizer: {path}", "as then", now, decisive=True)]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where two logs differ first, and by how much at most (relative); `lines` were compared, `values` of them differ."""

    lines: int
    values: int
    largest: float
    first: str


def compare_logs(then: epath.Path, now: epath.Path) -> dict[str, Difference]:
    """Every metrics.jsonl and evaluation.jsonl below `then` against the one at the same place below `now`.

    The speed is left out. A log that is missing below `now` differs in everything.
    """
    found = {}
    for log in _logs(then):
        place = log.relative_to(then)
        lines = read_metrics(log)
        again = read_metrics(now / place) if (now / place).exists() else []
        found[str(place)] = _difference(lines, again)
    return found


def _logs(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in (CHECKPOINTS, "rows", "model"):
            yield from _logs(path)
        elif path.name in (METRICS, "evaluation.jsonl"):
            yield path


def _difference(then: list[dict], now: list[dict]) -> Difference:
    values, largest, first = 0, 0.0, ""
    for number in range(max(len(then), len(now))):
        old = then[number] if number < len(then) else {}
        new = now[number] if number < len(now) else {}
        for name in dict.fromkeys([*old, *new]):
            if name == _CLOCK or _equal(old.get(name), new.get(name)):
                continue
            values += 1
            largest = max(largest, _relative(old.get(name), new.get(name)))
            first = first or f"line {number + 1}, {name}: {old.get(name)} then, {new.get(name)} now"
    return Difference(len(then), values, largest, first)


def _equal(old: Any, new: Any) -> bool:
    both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
    return both_nan or old == new


def _relative(old: Any, new: Any) -> float:
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (old, new)):
        return math.inf
    return abs(new - old) / max(abs(old), abs(new))


def _commit(state: Mapping[str, Any] | None) -> str:
    if not state or not state.get("commit"):
        return "not a git checkout"
    return state["commit"][:12] + (" with changes" if state.get("dirty") else "")
