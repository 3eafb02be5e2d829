"""A compiled schedule: the learning rate as a function of the step, on the device in float32 and on the host in float64."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

TIMESCALE = 10.0  # alpha of the inverse square root in the infinite schedules of Ibrahim et al. (arXiv 2403.08763)


@dataclasses.dataclass(frozen=True)
class Segment:
    """A phase with its borders (steps) and values (learning rates) worked out."""

    shape: str
    first_step: float
    last_step: float
    first: float
    last: float

    @property
    def ratio(self) -> float:
        """Last value to first; 0 where it begins at 0."""
        return self.last / self.first if self.first else 0.0

    @property
    def growth(self) -> float:
        """Its last step to its first one: what the step itself is multiplied by."""
        return self.last_step / self.first_step if self.first_step else np.inf


# x in [0, 1] over the phase -> the share of the way from the first value to the last that has been gone.
SHAPES: dict[str, Callable[[Any, Segment, Any], Any]] = {
    "warm-up": lambda x, segment, xp: x,
    "hold": lambda x, segment, xp: xp.zeros_like(x),
    "linear": lambda x, segment, xp: x,
    "cosine": lambda x, segment, xp: (1 - xp.cos(np.pi * x)) / 2,
    "1-sqrt": lambda x, segment, xp: xp.sqrt(x),  # Haegele et al., arXiv 2405.18392
    "inverse-sqrt": lambda x, segment, xp: (1 / xp.sqrt(1 + TIMESCALE * x) - 1) / (1 / np.sqrt(1 + TIMESCALE) - 1),
    "exponential": lambda x, segment, xp: x if segment.ratio == 1 else (1 - segment.ratio**x) / (1 - segment.ratio),
    "power": lambda x, segment, xp: x if segment.ratio == 1 else _power(x, segment),
}
ABOVE_ZERO = ("exponential", "power")  # shapes that multiply: neither of their ends can be 0


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """A function of the step that optax accepts as a schedule, and plain data to print and to store."""

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
            inside = segment.first + (segment.last - segment.first) * SHAPES[segment.shape](x, segment, xp)
            value = xp.where(step >= segment.first_step, inside, value)
        return value

    @property
    def final(self) -> float:
        """The value the schedule ends on; past its end this value holds."""
        return self.segments[-1].last

    @property
    def end(self) -> float:
        """The step that its phases end on."""
        return self.segments[-1].last_step

    def describe(self, steps: int | None = None) -> str:
        """One line: "0 -> 3e-05 warm-up over 12 steps; ...", and what holds after the last phase in a run of `steps`."""
        parts = [
            f"{s.first:.3g} -> {s.last:.3g} {s.shape} over {s.last_step - s.first_step:,.0f} steps"
            for s in self.segments
        ]
        if steps is not None and steps - self.end > 0.5:
            parts.append(f"its phases end there: {self.final:.3g} holds for the {steps - self.end:,.0f} steps left")
        return "; ".join(parts)


def _power(x, segment: Segment):
    """The value goes as a power of the step (Shen et al., arXiv 2408.13359), which one its two ends say."""
    exponent = np.log(segment.ratio) / np.log(segment.growth)
    return ((1 + x * (segment.growth - 1)) ** exponent - 1) / (segment.ratio - 1)
