"""Which steps are refused: those that are not finite, and those that stand out of the steps before them.

Decided inside the step, from numbers that live on the device: the host is never waited for.
"""

import dataclasses

import jax
import jax.numpy as jnp

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError

# The least deviation that counts, as a share of the mean: steps that hardly differ do not make small differences spikes.
_LEAST_DEVIATION = 0.01


@dataclasses.dataclass(frozen=True)
class Guard:
    """When a step's update is refused, and when the run stops.

    A step is a spike when its loss or its gradient norm is more than `sigmas` standard deviations above the mean of the
    last `window` accepted steps; there is no verdict before half of them are there, and they are forgotten where a stage
    of the data begins. A step that is not finite is refused always.

    sigmas: None refuses no spike.
    patience: refused steps one after another at which the run stops.
    """

    sigmas: float | None = 6.0
    window: int = 128
    patience: int = 10

    def __post_init__(self):
        for name, minimum in (("window", 2), ("patience", 1)):
            object.__setattr__(self, name, whole_number(getattr(self, name), f"Guard.{name}", minimum=minimum))
        number = isinstance(self.sigmas, int | float) and not isinstance(self.sigmas, bool)
        if self.sigmas is not None and not (number and self.sigmas > 0):
            raise ConfigurationError(f"Guard.sigmas = {self.sigmas!r}: it is a number above 0, or None.")


Watch = dict[str, jax.Array]


def fresh_watch(guard: Guard) -> Watch:
    """Nothing seen yet. `seen` counts accepted steps, `refused` those refused since; `stage` is that of the last step."""
    nothing = jnp.zeros((guard.window,), jnp.float32)
    return {
        "losses": nothing,
        "norms": nothing,
        "seen": jnp.zeros((), jnp.int32),
        "refused": jnp.zeros((), jnp.int32),
        "stage": jnp.zeros((), jnp.int32),
    }


def judge(
    guard: Guard, watch: Watch, loss: jax.Array, norm: jax.Array, sound: jax.Array, stage: jax.Array
) -> tuple[jax.Array, Watch, dict[str, jax.Array]]:
    """Whether the step is accepted (bool), what is remembered then, and metrics.

    Args:
        loss, norm: of the step, float32 scalars.
        sound: whether all that the step would change the state with is finite (bool).
        stage: of the data, int32: where it is another than that of the step before, what was noted is forgotten.

    Returns:
        metrics: `skipped` (1 where it is refused), `deviations` (by how many the step stands above the mean; 0 without a
        verdict), `refused_in_a_row`.
    """
    seen = jnp.where(stage == watch["stage"], watch["seen"], 0)
    deviations = jnp.maximum(_above(watch["losses"], seen, loss), _above(watch["norms"], seen, norm))
    accepted = sound if guard.sigmas is None else sound & (deviations <= guard.sigmas)
    refused = jnp.where(accepted, 0, watch["refused"] + 1)

    def noted(values: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.where(accepted, values.at[seen % guard.window].set(value), values)

    watch = {
        "losses": noted(watch["losses"], loss),
        "norms": noted(watch["norms"], norm),
        "seen": seen + accepted.astype(jnp.int32),
        "refused": refused,
        "stage": stage,
    }
    metrics = {"skipped": ~accepted, "deviations": jnp.where(sound, deviations, 0.0), "refused_in_a_row": refused}
    return accepted, watch, {name: value.astype(jnp.float32) for name, value in metrics.items()}


def _above(values: jax.Array, seen: jax.Array, value: jax.Array) -> jax.Array:
    """How many standard deviations `value` is above the mean of what was noted; 0 while too little was."""
    window = values.shape[0]
    count = jnp.minimum(seen, window)
    noted = jnp.arange(window) < count
    mean = jnp.sum(jnp.where(noted, values, 0.0)) / jnp.maximum(count, 1)
    variance = jnp.sum(jnp.where(noted, jnp.square(values - mean), 0.0)) / jnp.maximum(count - 1, 1)
    deviation = jnp.maximum(jnp.sqrt(variance), _LEAST_DEVIATION * jnp.abs(mean))
    return jnp.where(count >= max(2, window // 2), (value - mean) / jnp.maximum(deviation, 1e-30), 0.0)
