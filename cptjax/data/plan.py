"""Which rows a run reads: `row(seed, stage, step, i)`, a pure function, and what it amounts to, known before it starts.

Row i of a step is slot `step * batch_rows + i` of the run; the quota schedule of its stage says which source serves
it and for the how-manieth time; that number, counted from the run's start and from `start_rows` (what the trunk had
read), gives the epoch and the place in the epoch's permutation. No iterator, no state: any step, any host, any order.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping

import numpy as np

from cptjax.data.permutation import permutation_key, permute_each
from cptjax.data.quota import Quota
from cptjax.data.rows import Manifest
from cptjax.data.shares import Shares, ramp

_RAMP_PIECES = 32  # jumps in which weights move
_RAMP_SMALLEST = (
    2**-16
)  # of a ramp's shares: fewer jumps where there would be smaller ones, which take long to schedule
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


def source_info(found: Manifest) -> SourceInfo:
    """What a plan needs to know of these rows."""
    return SourceInfo(found.rows, found.tokens, found.bytes, found.documents, found.fingerprint, found.sequence_length)


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
