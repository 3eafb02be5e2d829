"""Learning-rate schedules as people write them: a start value and phases, compiled into a function of the step.

    Schedule(peak="inherit", start="peak", phases=(Phase("cosine", to="peak/100"),))           # the reuse recipe
    Schedule(peak=3e-4, start=0.0, phases=(Phase("warm-up", length="1%"), Phase("cosine", to="peak/10")))

A value is a number, or relative to the peak ("peak", "peak/100", "peak*0.1"), or to the learning rate that the weights
were left at ("inherit", "inherit/10"). That one is read from the lineage of a run of ours, or given as BASE_FINAL_LR; it
is never guessed (DESIGN.md 6). Step s of a run of T steps is evaluated at s/T, so that the value at T is what the run
ends on. Past the last phase its value holds, and the plan says so.
"""

import dataclasses
import re

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.training.learning_rate import ABOVE_ZERO, SHAPES, LearningRate, Segment
from cptjax.training.lengths import length_in_steps

INHERIT = "inherit"
_RELATIVE = re.compile(r"\s*(peak|inherit)\s*(?:([/*])\s*([0-9.eE+-]+))?\s*")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a schedule: from the value it finds to the value `to`, in the form of `shape`.

    to: a value; a warm-up ends on the peak unless it says otherwise, a hold has none.
    length: "5%", "200 steps" or "1e9 tokens"; None takes what the other phases leave (one phase at most).
    """

    shape: str
    to: float | str | None = None
    length: str | None = None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A schedule as written: nothing resolved yet.

    start: the value at step 0.
    rebuild_moments: a length, as a phase has, for which the learning rate is 0 before anything else: the optimizer's
        moments are gathered anew from the data, and no weight moves.
    """

    peak: float | str
    start: float | str
    phases: tuple[Phase, ...]
    rebuild_moments: str | None = None


def compile_schedule(
    schedule: Schedule, total_steps: int, batch_tokens: int, inherited: float | None = None
) -> LearningRate:
    """Works out a schedule's borders and values for a run of `total_steps`.

    Args:
        inherited: the final learning rate of what the run starts from, if it is known.

    Raises:
        ConfigurationError: an unknown shape or value, phases longer than the run, or a value to inherit that nobody knows.
    """
    values = _Values(schedule.peak, inherited)
    segments, first_step = [], 0.0
    if schedule.rebuild_moments is not None:
        first_step = length_in_steps(schedule.rebuild_moments, total_steps, batch_tokens, "rebuild_moments")
        if first_step >= total_steps:
            raise ConfigurationError(
                f"rebuild_moments = {schedule.rebuild_moments!r}: that is all of the run ({total_steps:,} steps)."
            )
        segments.append(Segment("hold", 0.0, first_step, 0.0, 0.0))
    lengths = _phase_lengths(schedule.phases, total_steps, batch_tokens, first_step)
    value = values.of(schedule.start, "the schedule's start")
    for phase, length in zip(schedule.phases, lengths, strict=True):
        segment = Segment(phase.shape, first_step, first_step + length, value, _end(phase, value, values))
        _refuse_impossible(segment)
        segments.append(segment)
        first_step, value = segment.last_step, segment.last
    return LearningRate(values.peak, tuple(segments))


def switch_step(learning_rate: LearningRate, fraction: float, total_steps: int) -> int:
    """The first step, once the highest value is reached, at which the learning rate is at most `fraction` of its peak.

    This is the rule by which Reuse, Don't Retrain changes its data (arXiv 2407.07263, section 4.3; fraction 1/5 of the
    maximum of the continued run, not of pretraining).

    Raises:
        ConfigurationError: the learning rate never falls that far within the run.
    """
    values = learning_rate.at(np.arange(total_steps + 1))
    highest = int(np.argmax(values))
    below = np.flatnonzero(values[highest:] <= fraction * learning_rate.peak * (1 + 1e-12))
    if below.size == 0 or highest + below[0] >= total_steps:
        raise ConfigurationError(
            f"a stage switches when the learning rate has fallen to {fraction:g} of its peak, but it only falls from "
            f"{values[highest]:.3g} to {values[-1]:.3g} in {total_steps:,} steps.\n"
            "  Lower FINAL_LEARNING_RATE, or switch by tokens or by a share of the run."
        )
    return highest + int(below[0])


def is_rate(value: object) -> bool:
    """Whether `value` can be a learning rate: a finite number from 0 on."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < np.inf


class _Values:
    """What "peak" and "inherit" stand for in one schedule."""

    def __init__(self, peak: float | str, inherited: float | None):
        if inherited is not None and not is_rate(inherited):
            raise ConfigurationError(f"BASE_FINAL_LR = {inherited!r}: it is a number from 0 on, like 5e-5.")
        self._known = {INHERIT: inherited}
        self.peak = float(self.of(peak, "PEAK_LEARNING_RATE", "or 'inherit', 'inherit/10', 'inherit*2'"))
        if self.peak == 0:
            why = (
                "the checkpoint's training ended on a learning rate of 0"
                if inherited == 0
                else "nothing would be learned"
            )
            raise ConfigurationError(
                f"PEAK_LEARNING_RATE = {peak!r} is a learning rate of 0: {why}.\n  Set PEAK_LEARNING_RATE to a number above 0."
            )
        self._known["peak"] = self.peak

    def of(self, value: float | str | None, name: str, forms: str = 'or "peak", "peak/100", "inherit*0.5"') -> float:
        """The learning rate that `value` means."""
        if is_rate(value):
            return float(value)
        match = _RELATIVE.fullmatch(value) if isinstance(value, str) else None
        if match and match[1] in self._known:
            if (whole := self._known[match[1]]) is None:
                raise ConfigurationError(
                    f"{name} = {value!r}, but the checkpoint does not say what learning rate it was trained with.\n"
                    "  A Hugging Face folder has no such record. Give the learning rate that its training ended on:\n"
                    f"  --gin.BASE_FINAL_LR=5e-5 (from its paper or model card), or set {name} to a number."
                )
            try:
                factor = 1.0 if match[2] is None else float(match[3])
                if is_rate(factor) and is_rate(found := whole / factor if match[2] == "/" else whole * factor):
                    return float(found)
            except (ValueError, ZeroDivisionError):
                pass
        raise ConfigurationError(f"{name} = {value!r}: write a learning rate (a number from 0 on), {forms}.")


def _end(phase: Phase, begin: float, values: _Values) -> float:
    if phase.shape == "hold":
        if phase.to is not None and not np.isclose(
            values.of(phase.to, "the value of a hold"), begin, rtol=1e-9, atol=0
        ):
            raise ConfigurationError(
                f"a hold phase has to = {phase.to!r}, but it holds the value it finds, {begin:g}.\n"
                "  Leave `to` out, or name the shape that goes there (linear, cosine, ...)."
            )
        return begin
    if phase.shape == "warm-up" and phase.to is None:
        return values.peak
    return values.of(phase.to, f"the end of the {phase.shape} phase")


def _refuse_impossible(segment: Segment) -> None:
    if segment.shape in ABOVE_ZERO and not (segment.first > 0 and segment.last > 0):
        raise ConfigurationError(
            f"a phase of the shape {segment.shape!r} cannot go from {segment.first:g} to {segment.last:g}: both are above 0."
        )
    if segment.shape == "power" and not segment.first_step > 0:
        raise ConfigurationError(
            "a power phase goes as a power of the step, so that it cannot begin at step 0: put a warm-up before it."
        )
    if segment.shape == "warm-up" and segment.last < segment.first:
        raise ConfigurationError(
            f"a warm-up from {segment.first:g} to {segment.last:g} goes down; that is a linear phase."
        )


def _phase_lengths(phases: tuple[Phase, ...], total_steps: int, batch_tokens: int, taken: float) -> list[float]:
    """Steps of each phase, `taken` of the run's being gone before the first one."""
    if not phases:
        raise ConfigurationError("the schedule has no phases; it needs at least one, e.g. Phase('hold').")
    for phase in phases:
        if phase.shape not in SHAPES:
            raise ConfigurationError(f"unknown schedule phase {phase.shape!r}; the phases are {', '.join(SHAPES)}.")
    given = [
        None
        if p.length is None
        else length_in_steps(p.length, total_steps, batch_tokens, f"the {p.shape} phase's length")
        for p in phases
    ]
    left = total_steps - taken - sum(length for length in given if length is not None)
    if given.count(None) > 1:
        raise ConfigurationError("two phases of the schedule have no length; only one can take what is left.")
    if left < -1e-6:
        raise ConfigurationError(
            f"the schedule's phases are {-left:,.1f} steps longer than the run ({total_steps:,} steps)."
        )
    return [max(0.0, left) if length is None else length for length in given]
