"""What made a run against what is here: its environment, its base, its text; and two runs' numbers against each other."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from cptjax.checkpoints.hub import find_tokenizer
from cptjax.checkpoints.source import CHECKPOINTS, open_checkpoint
from cptjax.configuration import permissions
from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.configuration.resolution import Setting
from cptjax.configuration.statements import Macro, Reference
from cptjax.data.sources import Text, content_identity, find_source, from_plain, paths_of
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import read_json
from cptjax.reporting.folder import CONFIG, DATA, METRICS, RUN, git_state, versions
from cptjax.reporting.metrics import read_metrics
from cptjax.reporting.steps import is_measured

_TOKENIZER = "training.json"  # what `train_tokenizer` keeps of its text
_MEASUREMENTS = "evaluation"  # the folder where `evaluate` keeps what it measured, and under which settings


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


def starts_of(run: epath.Path) -> list[dict[str, Any]]:
    """What `run.json` says of each time the run was started, the first one first; there is at least one.

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
    return starts


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


def text_checks(folder: epath.Path, known: dict[str, list[str]] | None = None) -> list[Check]:
    """Each source's files as the job in `folder` read them against the files that its name finds here now.

    Of the jobs `train`, `train_tokenizer` and `evaluate`; for a folder of another there is nothing to check.

    Args:
        known: sha256s of the files found so far, by how their source was named; filled, so that what several folders
            were made of is read once.
    """
    known = {} if known is None else known
    try:
        read = list(_texts_read(folder))
    except CptjaxError as error:  # its configuration is no longer accepted, or a file is damaged
        return [Check("text", "as then", str(error).splitlines()[0], decisive=True)]
    return [_text_check(name, given, then, known) for name, given, then in read]


def _texts_read(folder: epath.Path) -> Iterator[tuple[str, Any, list[str] | str]]:
    """(name, as it was given, sha256s of its files or one sha256 of all those) of each source the folder was made of."""
    if (folder / DATA).exists():
        for name, source in read_json(folder / DATA).items():
            yield name, source["given"], [file["sha256"] for file in source["files"]]
        return
    measured = sorted((folder / _MEASUREMENTS).glob("*.json")) if (folder / _MEASUREMENTS).is_dir() else []
    texts: Mapping[str, list[str] | str] = {}
    if (folder / _TOKENIZER).exists():
        texts = read_json(folder / _TOKENIZER).get("text", {})
    elif measured:  # all were made under the same settings
        texts = read_json(measured[0]).get("settings", {}).get("SOURCES", {})
    given = _configured_sources(folder) if texts else {}
    for name, then in texts.items():
        yield name, given.get(name, []), then


def _configured_sources(folder: epath.Path) -> Mapping[str, Any]:
    """What the job in `folder` was given as `sources`, from the configuration that it keeps there.

    Raises:
        ConfigurationError: the configuration is no longer accepted.
    """
    resolution = configure(parse_command((*permissions(), f"--gin_file={folder / CONFIG}"))).resolution

    def plain(value: Any) -> Any:
        if isinstance(value, Macro):
            return plain(resolution.macros[value.name].binding.value)
        if isinstance(value, Reference):  # @sources.Text(): what is bound to it, as `as_plain` would have it
            return {
                "Text": {setting.binding.argument: plain(setting.binding.value) for setting in of_text(value.scope)}
            }
        if isinstance(value, Mapping):
            return {plain(key): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    def of_text(scope: str) -> Iterator[Setting]:
        return (s for s in resolution.settings if s.target.object is Text and s.binding.scope == scope)

    for setting in resolution.settings:
        if setting.target.object is resolution.function and setting.binding.argument == "sources":
            return plain(setting.binding.value)
    return {}


def _text_check(name: str, given: Any, then: list[str] | str, known: dict[str, list[str]]) -> Check:
    where = paths_of(from_plain(given))
    shown = where if isinstance(where, str) else f"{len(where)} paths"
    many = "" if isinstance(then, str) else f", {len(then)} file{'' if len(then) == 1 else 's'}"
    try:
        if repr(given) not in known:
            known[repr(given)] = [
                file["sha256"] for file in content_identity(find_source(name, from_plain(given)), again=True)
            ]
        found = known[repr(given)]
    except (CptjaxError, OSError) as error:
        now = str(error).splitlines()[0]
    else:
        if isinstance(then, str):
            now = "as then" if hashlib.sha256("".join(found).encode()).hexdigest() == then else "changed"
        else:
            gone, new = len(set(then) - set(found)), len(set(found) - set(then))
            now = "as then" if not gone and not new else f"{gone} of them changed or gone, {new} new"
    return Check(f"text: {name} ({shown}{many})", "as then", now, decisive=True)


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
        found = open_tokenizer(find_tokenizer(path)).fingerprint
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

    The speed is left out. A log that is missing below `now` differs in everything. Without logs below `then` the result is
    empty: nothing was compared.
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
            if is_measured(name) or _equal(old.get(name), new.get(name)):
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
