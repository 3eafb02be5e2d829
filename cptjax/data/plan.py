"""Which rows a run reads: `row(seed, stage, step, i)`, a pure function, and what it amounts to, known before it starts.

Row i of a step is slot `step * batch_rows + i` of the run; the quota schedule of its stage says which source serves
it and for the how-manieth time; that number, counted from the run's start and from `start_rows` (what the trunk had
read), gives the epoch and the place in the epoch's permutation. No iterator, no state: any step, any host, any order.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from cptjax.counts import count
from cptjax.data.blend import ByTemperature, Ramp, Weights, named
from cptjax.data.packing import Row
from cptjax.data.permutation import permutation_key, permute_each
from cptjax.data.quota import Quota
from cptjax.data.row_format import batch_of
from cptjax.data.rows import RowReader
from cptjax.data.shares import Shares, integer_parts, parts_of, ramp
from cptjax.errors import ConfigurationError

TOKENS, BYTES = "tokens", "bytes"
UNITS = (TOKENS, BYTES)
_RAMP_PIECES = 32  # jumps in which weights move
_RAMP_SMALLEST = (
    2**-16
)  # of a ramp's shares: fewer jumps where there would be smaller ones, which take long to schedule
_RAMP_WHOLE = 2**32  # denominator of a ramp's shares: its pieces' have one of 2**38, and the schedule holds up to 2**40
_WINDOW = 4096  # slots whose rows are found in one go
_WINDOWS_KEPT = 4


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What the plan needs of a source's training rows; `tokens` are targets, `bytes` raw text."""

    rows: int
    tokens: int
    bytes: int
    documents: int
    fingerprint: str
    length: int

    @property
    def fill(self) -> float:
        """The share of the rows' positions that hold a token."""
        return self.tokens / (self.rows * self.length)


@dataclasses.dataclass(frozen=True)
class PlannedStage:
    """A stage with its steps fixed.

    Attributes:
        weights: shares as given; of a ramp the mean of both ends.
        parts: integer shares of rows; of a ramp those that it ends with.
        ramp_from: the integer shares that a ramp begins with, of the same sum; None: the shares do not move.
    """

    name: str
    steps: int
    weights: Mapping[str, float]
    parts: Mapping[str, int]
    ramp_from: Mapping[str, int] | None = None

    def shares(self, batch_rows: int) -> Shares:
        """The share of each source of `parts` in the stage's rows."""
        after = tuple(self.parts.values())
        if self.ramp_from is None:
            return Shares((after,))
        before = tuple(self.ramp_from[name] for name in self.parts)
        least = min(n for n in (*before, *after) if n) / sum(after)
        pieces = max(1, min(_RAMP_PIECES, self.steps, int(least / (2 * _RAMP_SMALLEST))))
        ends = [self.steps * (piece + 1) // pieces * batch_rows for piece in range(pieces)]
        return ramp(before, after, np.diff(ends, prepend=0).tolist())


@dataclasses.dataclass(frozen=True)
class DataPlan:
    """Every row of a run. `plan_data` makes it; `to_json` and `from_json` carry it.

    start_rows: rows of each source that the trunk had read, which this run goes on past.
    epochs_before: how often each source was read before this run, whether it goes on past that or begins anew.
    """

    sources: Mapping[str, SourceInfo]
    stages: tuple[PlannedStage, ...]
    batch_rows: int
    seed: int
    start_rows: Mapping[str, int]
    epochs_before: Mapping[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """The sources in the order that `source` indices count them."""
        return tuple(self.sources)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return sum(stage.steps for stage in self.stages)

    def rows(self, step: int, which: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """The rows `which` of a step's global batch: source indices (int32) and row indices in each source (int64).

        Raises:
            IndexError: a step outside the run.
        """
        source, row, _ = self._planned(step, which)
        return source, row

    def epochs_of(self, step: int, which: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """For the rows that `rows` gives: source indices (int32), and how often each source had been read whole before (int64)."""
        source, _, epoch = self._planned(step, which)
        return source, epoch

    def stage_of(self, step: int) -> PlannedStage:
        """The stage that a step belongs to."""
        return self.stages[self._stage_at(step)[0]]

    def exposures(self, step: int) -> dict[str, int]:
        """Rows of each source read by this run before `step` (the trunk's `start_rows` not included)."""
        if step == self.steps:
            total = self._read_before(len(self.stages)) - self._read_before(0)
        else:
            stage, begin = self._stage_at(step)
            total = self._read_before(stage) - self._read_before(0)
            total[self._members(stage)] += self._quota(stage).counts((step - begin) * self.batch_rows)
        return dict(zip(self.names, total.tolist(), strict=True))

    def tokens(self, rows: Mapping[str, int]) -> dict[str, float]:
        """Tokens in so many rows of each source, on its average (rows are full but the last of each source)."""
        return {name: count * self.sources[name].tokens / self.sources[name].rows for name, count in rows.items()}

    def epochs(self, step: int) -> dict[str, float]:
        """How often each source has been read before `step`, the trunk's reading included."""
        read = self.exposures(step)
        return {name: self.epochs_before.get(name, 0) + read[name] / info.rows for name, info in self.sources.items()}

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "DataPlan":
        """The plan of `to_json`."""
        found = json.loads(text)
        found["sources"] = {name: SourceInfo(**info) for name, info in found["sources"].items()}
        found["stages"] = tuple(PlannedStage(**stage) for stage in found["stages"])
        return cls(**found)

    def _planned(self, step: int, which: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source, row and epoch of the rows `which` of a step."""
        stage, begin = self._stage_at(step)
        first, last, stride = which.indices(self.batch_rows)
        if stride != 1:
            raise IndexError(f"rows of a step are taken by a plain slice, not one with stride {stride}")
        at = (step - begin) * self.batch_rows
        start, stop = at + first, at + max(first, last)
        found = [(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))]
        for number in range(start // _WINDOW, -(-stop // _WINDOW)):
            mine = slice(max(0, start - number * _WINDOW), stop - number * _WINDOW)
            found.append(tuple(array[mine] for array in self._window(stage, number)))
        source, row, epoch = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return source, row, epoch

    def _stage_at(self, step: int) -> tuple[int, int]:
        begin = 0
        for i, stage in enumerate(self.stages):
            if begin <= step < begin + stage.steps:
                return i, begin
            begin += stage.steps
        raise IndexError(f"step {step} is outside this plan of {begin} steps")

    @functools.cached_property
    def _quotas(self) -> tuple[Quota, ...]:
        return tuple(Quota(stage.shares(self.batch_rows)) for stage in self.stages)

    def _quota(self, stage: int) -> Quota:
        return self._quotas[stage]

    def _members(self, stage: int) -> np.ndarray:
        return np.array([self.names.index(name) for name in self.stages[stage].parts])

    def _read_before(self, stage: int) -> np.ndarray:
        """Rows of each source read before a stage (or, of its number, after the last), the trunk's too, int64 [sources]."""
        read = np.array([self.start_rows.get(name, 0) for name in self.names], np.int64)
        for i in range(stage):
            read[self._members(i)] += self._read_in(i)
        return read

    @functools.cached_property
    def _read_in(self) -> Callable[[int], np.ndarray]:
        """Rows of each of its sources that a whole stage reads: counted once, and only for the stages that are asked for."""
        return functools.cache(lambda stage: self._quota(stage).counts(self.stages[stage].steps * self.batch_rows))

    @functools.cached_property
    def _window(self) -> Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(stage, number) -> source, row and epoch of that window's slots. Kept are the last few, which the next steps are in."""
        return functools.lru_cache(_WINDOWS_KEPT)(self._slots)

    def _slots(self, stage: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        local, occurrence = self._quota(stage).rows(number * _WINDOW, (number + 1) * _WINDOW)
        source = self._members(stage)[local]
        size = np.array([info.rows for info in self.sources.values()])
        epoch, place = np.divmod(occurrence + self._read_before(stage)[source], size[source])
        orders, which = np.unique(epoch * len(size) + source, return_inverse=True)
        epochs, sources = np.divmod(orders, len(size))
        keys = [
            permutation_key(self.seed, self.names[i], e) for i, e in zip(sources.tolist(), epochs.tolist(), strict=True)
        ]
        return source.astype(np.int32), permute_each(keys, size[sources].tolist(), which, place), epoch


def plan_data(
    stages: Sequence[tuple[str, Weights, int]],
    sources: Mapping[str, SourceInfo],
    batch_rows: int,
    seed: int,
    max_epochs: float | None = None,
    start_rows: Mapping[str, int] | None = None,
    epochs_before: Mapping[str, float] | None = None,
    shares_of: str = TOKENS,
) -> DataPlan:
    """The rows of a run of `stages` (name, weights, steps).

    Weights become row weights by what a row of each source holds on its average, so shares of tokens, or bytes, are exact.

    Args:
        batch_rows: rows in a step's global batch.
        max_epochs: how often at most a source may be read, what its trunk read included; None: as often as it takes.
        start_rows: rows of each source that the trunk had read: this run continues past them.
        epochs_before: how often each source was read before this run; None: as often as `start_rows` says.
        shares_of: what weights are shares of, "tokens" or "bytes".

    Raises:
        ConfigurationError: an unknown or empty source, a stage without steps, or a source read more than `max_epochs`.
    """
    if shares_of not in UNITS:
        raise ConfigurationError(f"SHARES_OF is {shares_of!r}; it is {' or '.join(map(repr, UNITS))}.")
    planned = []
    for name, weights, steps in stages:
        if steps < 1:
            raise ConfigurationError(f"stage {name!r} has {steps} steps; it needs at least one.")
        for source in named(weights):
            if source not in sources:
                raise ConfigurationError(f"stage {name!r} reads from {source!r}; the sources are {', '.join(sources)}.")
            if not sources[source].rows:
                raise ConfigurationError(f"source {source!r} (stage {name!r}) is empty: it has no training rows.")
        planned.append(_planned_stage(name, weights, steps, sources, shares_of))
    used = {name: info for name, info in sources.items() if any(name in stage.parts for stage in planned)}
    start = {name: rows for name, rows in (start_rows or {}).items() if name in used and rows}
    before = {name: rows / used[name].rows for name, rows in start.items()} if epochs_before is None else epochs_before
    before = {name: epochs for name, epochs in before.items() if name in used and epochs}
    plan = DataPlan(used, tuple(planned), batch_rows, seed, start, before)
    if max_epochs is not None:
        _check_epochs(plan, max_epochs)
    return plan


def _planned_stage(
    name: str, weights: Weights, steps: int, sources: Mapping[str, SourceInfo], shares_of: str
) -> PlannedStage:
    size = {source: getattr(sources[source], shares_of) for source in named(weights)}

    def resolved(weights: Mapping[str, float] | ByTemperature) -> dict[str, float]:
        return weights.of_sizes(size) if isinstance(weights, ByTemperature) else dict(weights)

    def of_rows(weights: Mapping[str, float]) -> dict[str, Fraction]:
        return {
            source: Fraction(str(weight)) * sources[source].rows / size[source]
            for source, weight in weights.items()
            if weight
        }

    if not isinstance(weights, Ramp):
        found = resolved(weights)
        per_row = of_rows(found)
        return PlannedStage(name, steps, found, dict(zip(per_row, integer_parts(per_row), strict=True)))
    ends, mean = [], dict.fromkeys(size, 0.0)
    for end in (resolved(weights.before), resolved(weights.after)):
        per_row = of_rows(end)
        parts = dict(zip(per_row, parts_of(per_row, _RAMP_WHOLE), strict=True))
        ends.append({source: parts.get(source, 0) for source in size})
        mean = {source: mean[source] + end.get(source, 0) / sum(end.values()) / 2 for source in mean}
    return PlannedStage(name, steps, mean, ends[1], ends[0])


def batch(
    readers: Mapping[str, RowReader], plan: DataPlan, step: int, which: slice = slice(None)
) -> dict[str, np.ndarray]:
    """Rows `which` of a step's global batch: `inputs, targets, segment_ids, positions` int32 and `weights` float32
    [rows, sequence_length], and `source` int32 [rows], indices into `plan.names`.
    """
    source, row = plan.rows(step, which)
    pieces: list[Row | None] = [None] * len(source)
    for i in np.unique(source):
        mine = np.flatnonzero(source == i)
        for at, each in zip(mine.tolist(), readers[plan.names[i]].pieces(row[mine]), strict=True):
            pieces[at] = each
    length = readers[plan.names[0]].manifest.sequence_length
    return {**batch_of(pieces, length), "source": source}


def documents_read(readers: Mapping[str, RowReader], plan: DataPlan, steps: range, most: int = 20) -> list[str]:
    """ "<source>: <id>, <id>, ..." for the documents whose tokens these steps read, at most `most` of each source."""
    found: dict[str, dict[str, None]] = {}
    for step in steps:
        source, row = plan.rows(step, slice(None))
        for i in np.unique(source):
            reader = readers[plan.names[i]]
            pieces = reader.pieces(row[source == i])
            ordinals = dict.fromkeys(ordinal for piece in pieces for ordinal in piece.ordinals.tolist())
            names = found.setdefault(plan.names[i], {})
            names.update(dict.fromkeys(document["id"] for document in reader.documents(list(ordinals))))
    return [
        f"{name}: {', '.join(list(ids)[:most])}" + (f" and {len(ids) - most:,} more" if len(ids) > most else "")
        for name, ids in found.items()
    ]


def _check_epochs(plan: DataPlan, max_epochs: float) -> None:
    for name, epochs in plan.epochs(plan.steps).items():
        if epochs <= max_epochs:
            continue
        info, carried = plan.sources[name], plan.epochs_before.get(name, 0)
        read = plan.exposures(plan.steps)
        shares = [
            f"{s.weights[name] / sum(s.weights.values()):.3g} of stage {s.name!r}"
            for s in plan.stages
            if name in s.parts
        ]
        left = max(0.0, max_epochs - carried) / (read[name] / info.rows)
        total = sum(plan.tokens(read).values())
        raise ConfigurationError(
            f"source {name!r} holds {count(info.tokens)} tokens; this plan reads {count(epochs * info.tokens)} of it "
            f"({epochs:.1f} epochs) but max_epochs is {max_epochs:g}.\n"
            f"  It has {', '.join(shares)}"
            + (f"; {carried:.1f} epochs of it were read before this run" if carried else "")
            + f".\n  Lower TRAIN_TOKENS below {count(total * left)}, lower its shares to {left:.2g} of what they are,\n"
            f"  or set max_epochs = {int(np.ceil(epochs))}."
        )
