"""The optimizers, from optax: plain settings that become a transformation of gradients.

Neither the learning rate nor clipping is in them: the step multiplies by the one and does the other, so that the one step
counter of the run decides the rate, an optimizer whose moments are carried to another run brings no schedule along, and a
frozen weight's gradient does not count in the norm that is clipped.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import optax
import optax.contrib

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.models.model import Params, WeightSpec
from cptjax.training.moments import by_matrix, kept_in, scaled_by_size

Weights = Mapping[str, WeightSpec]
MOMENTS = ("float32", "bfloat16")
# A mean that moves by less than half of bfloat16's spacing (2**-8 of the value) a step does not move at all.
_SLOWEST_IN_BFLOAT16 = 2.0**-8


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW (arXiv 1711.05101); defaults as Nemotron-4 and Llama publish them.

    weight_decay: of matrices and embedding tables, never of norms and biases (`decays`).
    moments: the dtype that both moments are kept in; they are computed in float32.
    """

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    moments: str = "float32"

    def __post_init__(self):
        _check(self, beta1=_share, beta2=_share, epsilon=_positive, weight_decay=_not_negative)
        _check_moments(self, self.beta1, self.beta2)

    def transformation(self, weights: Weights) -> optax.GradientTransformation:
        """Gradients -> the update before the learning rate (still to be multiplied by minus the learning rate)."""
        inner = optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)
        return _with_decay(kept_in(inner, self.moments), self.weight_decay)


@dataclasses.dataclass(frozen=True)
class Lion:
    """Lion (arXiv 2302.06675): the sign of a momentum. Its learning rate is 3 to 10 times below AdamW's, its decay above."""

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.3
    moments: str = "float32"

    def __post_init__(self):
        _check(self, beta1=_share, beta2=_share, weight_decay=_not_negative)
        _check_moments(self, self.beta2)

    def transformation(self, weights: Weights) -> optax.GradientTransformation:
        """See `AdamW.transformation`."""
        return _with_decay(kept_in(optax.scale_by_lion(self.beta1, self.beta2), self.moments), self.weight_decay)


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """Adafactor (arXiv 1804.04235) without momentum: second moments of a matrix as one row and one column.

    Every layer's matrix is factored by itself, as the product it is used in: (inputs) x (outputs).

    decay: of the second moments, 1 - step ** -decay.
    clip_update: the largest root mean square of one matrix's update.
    scale_by_weight: multiply each update by the root mean square of its matrix, as the paper does; learning rates are then
        relative (1e-2 is usual). Without it they compare with AdamW's, so that one can be inherited.
    moments: float32 always: rows and columns are little.
    """

    decay: float = 0.8
    epsilon: float = 1e-30
    clip_update: float = 1.0
    weight_decay: float = 0.1
    scale_by_weight: bool = False
    moments: str = "float32"

    def __post_init__(self):
        if self.moments != "float32":
            raise ConfigurationError(
                f"Adafactor.moments = {self.moments!r}: it keeps rows and columns, in float32 always."
            )
        _check(self, decay=_share, epsilon=_positive, clip_update=_positive, weight_decay=_not_negative)

    def transformation(self, weights: Weights) -> optax.GradientTransformation:
        """See `AdamW.transformation`."""
        scale = optax.scale_by_param_block_rms() if self.scale_by_weight else optax.identity()
        inner = optax.chain(
            optax.scale_by_factored_rms(decay_rate=self.decay, epsilon=self.epsilon),
            optax.clip_by_block_rms(self.clip_update),
            scale,
        )
        return _with_decay(by_matrix(inner, weights), self.weight_decay)


@dataclasses.dataclass(frozen=True)
class Muon:
    """Muon (K. Jordan 2024) for the layers' matrices, AdamW for the embeddings, the head, norms and biases.

    The update of a matrix is its momentum made orthogonal by Newton-Schulz steps, times `rms` * sqrt(max(inputs, outputs)):
    with 0.2 as large as AdamW's usual ones, so that one learning rate serves both (Moonlight, arXiv 2502.16982).

    beta1, beta2, epsilon: AdamW's.
    """

    momentum: float = 0.95
    steps: int = 5
    rms: float = 0.2
    weight_decay: float = 0.1
    moments: str = "float32"
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8

    def __post_init__(self):
        _check(self, momentum=_share, beta1=_share, beta2=_share, weight_decay=_not_negative)
        _check(self, rms=_positive, epsilon=_positive)
        object.__setattr__(self, "steps", whole_number(self.steps, "Muon.steps", minimum=1))
        _check_moments(self, self.momentum, self.beta1, self.beta2)

    def transformation(self, weights: Weights) -> optax.GradientTransformation:
        """See `AdamW.transformation`."""
        matrices = {name: spec for name, spec in weights.items() if spec.stacked and spec.inputs}
        axes = {name: optax.contrib.MuonDimensionNumbers(spec.inputs, spec.outputs) for name, spec in matrices.items()}
        muon = optax.chain(
            optax.contrib.scale_by_muon(
                ns_steps=self.steps,
                beta=self.momentum,
                weight_dimension_numbers=lambda updates: {
                    name: axes.get(name, update) for name, update in updates.items()
                },
            ),
            scaled_by_size(weights, self.rms),
        )
        adamw = optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)
        both = optax.partition(
            {"muon": muon, "adamw": adamw},
            lambda params: {name: "muon" if name in matrices else "adamw" for name in params},
        )
        return _with_decay(kept_in(_precise(both), self.moments), self.weight_decay)


Optimizer = AdamW | Lion | Adafactor | Muon


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of this name."""
    return name.endswith((".kernel", ".table"))


def decay_mask(params: Params) -> dict[str, bool]:
    """The mask optax takes: a tree like the parameters' with True where weight decay applies."""
    return {name: decays(name) for name in params}


def _with_decay(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    return optax.chain(inner, optax.add_decayed_weights(decay, mask=decay_mask))


def _precise(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with its products of float32 computed in float32: on a TPU the default would round their inputs."""

    def update(updates, state, params=None):
        with jax.default_matmul_precision("highest"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def _share(value: float) -> bool:
    return 0 <= value < 1


def _positive(value: float) -> bool:
    return value > 0


def _not_negative(value: float) -> bool:
    return value >= 0


def _check(optimizer: Optimizer, **allowed: Callable[[float], bool]) -> None:
    for name, holds in allowed.items():
        value = getattr(optimizer, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not holds(value):
            raise ConfigurationError(f"{type(optimizer).__name__}.{name} = {value!r} is no value that it can have.")


def _check_moments(optimizer: Optimizer, *decays: float) -> None:
    name = type(optimizer).__name__
    if optimizer.moments not in MOMENTS:
        raise ConfigurationError(f"{name}.moments = {optimizer.moments!r}: moments are kept in {' or '.join(MOMENTS)}.")
    if optimizer.moments == "bfloat16" and (slowest := max(decays)) > 1 - _SLOWEST_IN_BFLOAT16:
        raise ConfigurationError(
            f"{name} keeps its moments in bfloat16, but a mean with a decay of {slowest} moves by less in a step than\n"
            "  bfloat16 can tell apart, and would stand still. Keep them in float32, or lower the decay (0.99 and below)."
        )
