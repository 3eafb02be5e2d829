"""The optimizer, from optax. The learning rate is not in it: the step multiplies by it, so that the one step counter of the
run decides it and an optimizer whose moments are carried to another run brings no schedule along."""

import dataclasses

import optax

from cptjax.errors import ConfigurationError
from cptjax.models.model import Params


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW (arXiv 1711.05101) behind clipping by the global norm; defaults as Nemotron-4 and Llama publish them.

    weight_decay: applied to matrices and embedding tables, never to norms and biases (`decays`).
    clip_norm: the largest global gradient norm; None does not clip.
    """

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0

    def __post_init__(self):
        allowed = {
            "beta1": lambda x: 0 <= x < 1,
            "beta2": lambda x: 0 <= x < 1,
            "epsilon": lambda x: x > 0,
            "weight_decay": lambda x: x >= 0,
            "clip_norm": lambda x: x > 0,
        }
        for name, holds in allowed.items():
            value = getattr(self, name)
            if value is None and name == "clip_norm":
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not holds(value):
                raise ConfigurationError(f"AdamW.{name} = {value!r} is no value that it can have.")

    def transformation(self) -> optax.GradientTransformation:
        """Gradients -> the update before the learning rate (still to be multiplied by minus the learning rate)."""
        clip = optax.identity() if self.clip_norm is None else optax.clip_by_global_norm(self.clip_norm)
        return optax.chain(
            clip,
            optax.scale_by_adam(self.beta1, self.beta2, self.epsilon),
            optax.add_decayed_weights(self.weight_decay, mask=decay_mask),
        )


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of this name."""
    return name.endswith((".kernel", ".table"))


def decay_mask(params: Params) -> dict[str, bool]:
    """The mask optax takes: a tree like the parameters' with True where weight decay applies."""
    return {name: decays(name) for name in params}
