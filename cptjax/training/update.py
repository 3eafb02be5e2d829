"""From a step's gradients to the next state: clipping, freezing, the optimizer, the guard, the average of the weights."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cptjax.models.model import Params
from cptjax.training.freezing import never_trained
from cptjax.training.guard import Guard, fresh_watch, judge
from cptjax.training.learning_rate import LearningRate

TrainState = dict
_STILL = -0.0  # x + -0.0 has the bits of x, also where x is -0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """What a run does with its gradients.

    Attributes:
        transformation: an optimizer's, before the learning rate.
        clip_norm: the largest global gradient norm, of the weights that are trained; None does not clip.
        average: the share that an exponential average of the weights keeps of itself at each step; None keeps none.
        thaw: the step from which each weight is trained (freezing.py); {} trains all.
        stage_begins: the steps at which a stage of the data begins, or weights are thawed: what was before is no measure for
            spikes there.
    """

    transformation: optax.GradientTransformation
    learning_rate: LearningRate
    clip_norm: float | None = 1.0
    guard: Guard = Guard()
    average: float | None = None
    thaw: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    stage_begins: tuple[int, ...] = (0,)

    @functools.cached_property
    def waiting(self) -> tuple[str, ...]:
        """The weights of which some are frozen for a part of the run."""
        return tuple(name for name, steps in self.thaw.items() if ((steps > 0) & np.isfinite(steps)).any())

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The transformation, over the weights that are ever trained."""
        left_out = frozenset(never_trained(self.thaw))
        return _without(self.transformation, left_out) if left_out else self.transformation

    def beside_parameters(self, params: Params) -> TrainState:
        """What the state holds at step 0 besides the counter and the parameters."""
        state = {"optimizer": self.optimizer.init(params), "watch": fresh_watch(self.guard)}
        return state if self.average is None else state | {"average": jax.tree.map(jnp.copy, params)}

    def apply(
        self, state: TrainState, loss: jax.Array, gradients: Params
    ) -> tuple[TrainState, dict[str, jax.Array], Params]:
        """The next state, metrics (float32 scalars) and the change of each parameter.

        A step that the guard refuses changes nothing but the counter and what the guard remembers.
        """
        step, params = state["step"], state["params"]
        trained = {name: step >= jnp.asarray(steps) for name, steps in self.thaw.items()}

        def masked(values: Params) -> Params:
            return {name: jnp.where(trained[name], x, _STILL) if name in trained else x for name, x in values.items()}

        norm = optax.tree.norm(masked(gradients))
        # Weights that wait to be thawed gather moments already: what is not finite there is refused as well.
        waiting = optax.tree.norm({name: jnp.where(trained[name], 0.0, gradients[name]) for name in self.waiting})
        stage = jnp.sum(step >= jnp.asarray(self.stage_begins, jnp.int32), dtype=jnp.int32)
        sound = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(waiting)
        accepted, watch, metrics = judge(self.guard, state["watch"], loss, norm, sound, stage)
        if self.clip_norm is not None:
            scale, scale_waiting = (jnp.minimum(1.0, self.clip_norm / jnp.maximum(x, 1e-30)) for x in (norm, waiting))
            gradients = {
                name: x * (jnp.where(trained[name], scale, scale_waiting) if name in self.waiting else scale)
                for name, x in gradients.items()
            }
        updates, optimizer = self.optimizer.update(gradients, state["optimizer"], params)
        rate = self.learning_rate(step)
        changes = masked(jax.tree.map(lambda update: jnp.where(accepted, -rate * update, _STILL), updates))
        new = {
            "step": step + 1,
            "params": jax.tree.map(jnp.add, params, changes),
            "optimizer": jax.tree.map(lambda n, o: jnp.where(accepted, n, o), optimizer, state["optimizer"]),
            "watch": watch,
        }
        if self.average is not None:
            kept = jnp.where(accepted, self.average, 1.0)
            new["average"] = jax.tree.map(lambda a, p: a + (1.0 - kept) * (p - a), state["average"], new["params"])
        return new, {"learning_rate": rate, "gradient_norm": norm, **metrics}, changes


def _without(inner: optax.GradientTransformation, left_out: frozenset[str]) -> optax.GradientTransformation:
    """`inner` over all weights but those `left_out`, whose updates are 0 and which have no moments."""

    def some(values: Params) -> Params:
        return {name: x for name, x in values.items() if name not in left_out}

    def update(gradients: Params, state, params: Params):
        updates, state = inner.update(some(gradients), state, some(params))
        return {name: updates[name] if name in updates else jnp.zeros_like(x) for name, x in params.items()}, state

    return optax.GradientTransformation(lambda params: inner.init(some(params)), update)
