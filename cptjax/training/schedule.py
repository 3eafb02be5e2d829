"""Learning-rate schedules: a start value and phases, compiled into a function of the step.

    Schedule(peak="inherit", start="peak", phases=(Phase("cosine", to="peak/100"),))           # the reuse recipe
    Schedule(peak=3e-4, start=0.0, phases=(Phase("linear", to="peak", length="1%"), Phase("cosine", to="peak/10")))

Values are numbers, or relative to the peak ("peak", "peak/100", "peak*0.1"). The peak is a number or "inherit": the final
learning rate of the run that the weights come from. It is never guessed (DESIGN.md 6). Step s of a run of T steps is
evaluated at s/T, so that the value at T is what the run ends on; past the end that value holds.
"""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.training.lengths import length_in_steps

TIMESCALE = 10.0  # alpha of the inverse square root in the infinite schedules of Ibrahim et al. (arXiv 2403.08763)
SHAPES = {
    # x in [0, 1] over the phase, ratio of its last value to its first -> the share of the way from the first to the last
    "hold": lambda x, ratio, xp: xp.zeros_like(x),
    "linear": lambda x, ratio, xp: x,
    "cosine": lambda x, ratio, xp: (1 - xp.cos(np.pi * x)) / 2,
    "1-sqrt": lambda x, ratio, xp: xp.sqrt(x),  # Haegele et al., arXiv 2405.18392
    "inverse-sqrt": lambda x, ratio, xp: (1 / xp.sqrt(1 + TIMESCALE * x) - 1) / (1 / np.sqrt(1 + TIMESCALE) - 1),
    "exponential": lambda x, ratio, xp: x if ratio == 1 else (1 - ratio**x) / (1 - ratio),
}


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a schedule: from the value it finds to the value `to`, in the form of `shape`.

    length: "5%", "200 steps" or "1e9 tokens"; None takes what the other phases leave (one phase at most).
    """

    shape: str
    to: float | str | None = None
    length: str | None = None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A schedule as written: nothing resolved yet. `start` is the value at step 0."""

    peak: float | str
    start: float | str
    phases: tuple[Phase, ...]


@dataclasses.dataclass(frozen=True)
class Segment:
    """A phase with its borders (steps) and values (learning rates) worked out."""

    shape: str
    first_step: float
    last_step: float
    first: float
    last: float


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """A compiled schedule: a function of the step that optax accepts as one, and plain data to print and to store."""

    peak: float
    segments: tuple[Segment, ...]

    def __call__(self, step):
        """Learning rate at `step` (an int32 JAX array or a Python int), float32 on the device."""
        return self._value(jnp.asarray(step, jnp.float32), jnp)

    def at(self, step) -> np.ndarray:
        """Learning rate at one or many steps on the host, in float64: for plans, plots and switch points."""
        return self._value(np.asarray(step, np.float64), np)

    def _value(self, step, xp):
        value = xp.full_like(step, self.segments[0].first)
        for segment in self.segments:
            span = segment.last_step - segment.first_step
            x = xp.clip((step - segment.first_step) / span, 0.0, 1.0) if span > 0 else xp.ones_like(step)
            ratio = segment.last / segment.first if segment.first else 0.0
            inside = segment.first + (segment.last - segment.first) * SHAPES[segment.shape](x, ratio, xp)
            value = xp.where(step >= segment.first_step, inside, value)
        return value

    @property
    def final(self) -> float:
        """The value the schedule ends on."""
        return self.segments[-1].last

    def describe(self) -> str:
        """One line: "0 -> 3e-05 linear, 12 steps; ..."."""
        return "; ".join(
            f"{s.first:.3g} -> {s.last:.3g} {s.shape} over {s.last_step - s.first_step:,.0f} steps"
            for s in self.segments
        )


def compile_schedule(
    schedule: Schedule, total_steps: int, batch_tokens: int, inherited_peak: float | None = None
) -> LearningRate:
    """Works out a schedule's borders and values for a run of `total_steps`.

    Args:
        inherited_peak: the final learning rate of what the run starts from, if it is known.

    Raises:
        ConfigurationError: an unknown shape or value, phases longer than the run, or a peak to inherit that nobody knows.
    """
    peak = schedule.peak
    if peak == "inherit":
        if inherited_peak is None:
            raise ConfigurationError(
                "PEAK_LEARNING_RATE = 'inherit', but the checkpoint does not say what learning rate it was trained with.\n"
                "  A Hugging Face folder has no such record. Give the learning rate that its training ended on:\n"
                "  --gin.BASE_FINAL_LR=5e-5 (from its paper or model card), or set PEAK_LEARNING_RATE to a number."
            )
        if not is_rate(inherited_peak):
            raise ConfigurationError(f"BASE_FINAL_LR = {inherited_peak!r}: it is a number from 0 on, like 5e-5.")
        peak = inherited_peak
    if not is_rate(peak):
        raise ConfigurationError(f"PEAK_LEARNING_RATE = {peak!r}: it is a number from 0 on, or 'inherit'.")
    lengths = _phase_lengths(schedule.phases, total_steps, batch_tokens)
    segments, first_step, value = [], 0.0, _value_of(schedule.start, peak, "the schedule's start")
    for phase, length in zip(schedule.phases, lengths, strict=True):
        to = value if phase.shape == "hold" else _value_of(phase.to, peak, f"the end of the {phase.shape} phase")
        if phase.shape == "exponential" and not (value > 0 and to > 0):
            raise ConfigurationError(f"an exponential phase cannot go from {value:g} to {to:g}: both are above 0.")
        segments.append(Segment(phase.shape, first_step, first_step + length, value, to))
        first_step, value = first_step + length, to
    return LearningRate(float(peak), tuple(segments))


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


def _phase_lengths(phases: tuple[Phase, ...], total_steps: int, batch_tokens: int) -> list[float]:
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
    left = total_steps - sum(length for length in given if length is not None)
    if given.count(None) > 1:
        raise ConfigurationError("two phases of the schedule have no length; only one can take what is left.")
    if left < -1e-6:
        raise ConfigurationError(
            f"the schedule's phases are {-left:,.1f} steps longer than the run ({total_steps:,} steps)."
        )
    if None not in given and left > 1e-6:
        raise ConfigurationError(
            f"the schedule's phases end {left:,.1f} steps before the run does ({total_steps:,} steps).\n"
            "  Leave one phase without a length, or add Phase('hold')."
        )
    return [left if length is None else length for length in given]


def is_rate(value: object) -> bool:
    """Whether `value` can be a learning rate: a finite number from 0 on."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < np.inf


def _value_of(value: float | str | None, peak: float, name: str) -> float:
    if is_rate(value):
        return float(value)
    match = re.fullmatch(r"\s*peak\s*(?:([/*])\s*([0-9.eE+-]+))?\s*", value) if isinstance(value, str) else None
    try:
        factor = 1.0 if match and match[1] is None else float(match[2]) if match else None
        if factor is not None and is_rate(found := peak / factor if match[1] == "/" else peak * factor):
            return found
    except (ValueError, ZeroDivisionError):
        pass
    raise ConfigurationError(f'{name} is {value!r}: write a learning rate, or "peak", "peak/100", "peak*0.1".')
