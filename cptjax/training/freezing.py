"""Weights that do not move: for the whole run, or until a part of it is over; by name and by layer."""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.models.model import WeightSpec
from cptjax.training.lengths import length_in_steps

_POSITION = re.compile(r"\.pattern_(\d+)\.")  # layers that repeat a pattern: one stack for each position in it


@dataclasses.dataclass(frozen=True)
class Freeze:
    """Weights that stay as they are, bit for bit.

    weights: names, or patterns of them: "embedding.table", "layers.*", "*.attention.*".
    layers: the first layer and the one after the last, counted from 0; None: all that the names cover.
    until: "20%", "500 steps" or "1e9 tokens", from where on they are trained; None: never. Moments are gathered
        meanwhile, so that they begin with the right ones; weights that are never trained have none.
    """

    weights: str | Sequence[str] = "*"
    layers: Sequence[int] | None = None
    until: str | None = None

    def __post_init__(self):
        patterns = [self.weights] if isinstance(self.weights, str) else self.weights
        if not isinstance(patterns, list | tuple) or not all(isinstance(each, str) for each in patterns):
            raise ConfigurationError(
                f"Freeze.weights = {self.weights!r}: it is a name or a pattern of names, or several."
            )
        if self.layers is not None and not (
            isinstance(self.layers, list | tuple)
            and len(self.layers) == 2
            and all(isinstance(i, int) and not isinstance(i, bool) for i in self.layers)
        ):
            raise ConfigurationError(
                f"Freeze.layers = {self.layers!r}: it is the first layer and the one after the last."
            )


def thaw_steps(
    freezes: Sequence[Freeze], weights: Mapping[str, WeightSpec], total_steps: int, batch_tokens: int
) -> dict[str, np.ndarray]:
    """The step from which each weight is trained: 0 at once, infinity never. The latest of all that name it.

    Returns:
        float32 arrays that broadcast against the weights: [layers, 1, ...] where layers differ, [1, ...] otherwise.

    Raises:
        ConfigurationError: names that no weight has, layers that there are not, or nothing left to train.
    """
    found = {name: np.zeros((spec.shape[0] if spec.stacked else 1,), np.float32) for name, spec in weights.items()}
    patterns = len({match[1] for name in weights if (match := _POSITION.search(name))}) or 1
    depth = patterns * max((spec.shape[0] for spec in weights.values() if spec.stacked), default=0)
    for freeze in freezes:
        begin = np.inf
        if freeze.until is not None:
            begin = np.ceil(length_in_steps(freeze.until, total_steps, batch_tokens, "Freeze.until"))
            if begin >= total_steps:
                raise ConfigurationError(
                    f"Freeze.until = {freeze.until!r} never comes in a run of {total_steps:,} steps.\n"
                    "  Leave `until` out to freeze the weights for the whole run."
                )
        for name in _named(freeze, weights, depth):
            chosen = _layers(freeze, name, len(found[name]), patterns) if weights[name].stacked else slice(None)
            found[name][chosen] = np.maximum(found[name][chosen], begin)
    if all(np.isinf(steps).all() for steps in found.values()):
        raise ConfigurationError("every weight is frozen for the whole run: there is nothing to train.")
    return {
        name: steps.reshape(-1, *(1,) * (len(weights[name].shape) - 1))
        if len(set(steps.tolist())) > 1
        else steps[:1].reshape((1,) * len(weights[name].shape))
        for name, steps in found.items()
    }


def never_trained(thaw: Mapping[str, np.ndarray]) -> list[str]:
    """The weights that are frozen for the whole run, all of their layers."""
    return [name for name, steps in thaw.items() if np.isinf(steps).all()]


def describe_freezing(thaw: Mapping[str, np.ndarray]) -> list[str]:
    """What is frozen, a line for what is frozen alike: "2 of 5 layers until step 20: layers.mlp.up.kernel, ..."."""
    alike: dict[str, list[str]] = {}
    for name, steps in thaw.items():
        layers = steps.ravel()
        for step in sorted(set(layers[layers > 0].tolist())):
            part = f"{int((layers == step).sum())} of {len(layers)} layers " if len(layers) > 1 else ""
            until = "for the whole run" if np.isinf(step) else f"until step {int(step):,}"
            alike.setdefault(part + until, []).append(name)
    return [f"{how}: {', '.join(names)}" for how, names in alike.items()]


def _named(freeze: Freeze, weights: Mapping[str, WeightSpec], depth: int) -> list[str]:
    patterns = [freeze.weights] if isinstance(freeze.weights, str) else list(freeze.weights)
    for pattern in patterns:
        if not fnmatch.filter(weights, pattern):
            raise ConfigurationError(
                f"Freeze.weights names {pattern!r}, which no weight is called.\n  The weights are {', '.join(weights)}."
            )
    names = [name for name in weights if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if freeze.layers is None:
        return names
    layers = freeze.layers
    if not 0 <= layers[0] < layers[1] <= depth:
        raise ConfigurationError(
            f"Freeze.layers = {layers!r}: it is the first layer and the one after the last, within 0 and {depth}."
        )
    if not (stacked := [name for name in names if weights[name].stacked]):
        raise ConfigurationError(f"Freeze.layers = {layers!r}, but none of {', '.join(names)} belongs to a layer.")
    return stacked


def _layers(freeze: Freeze, name: str, stack: int, patterns: int) -> np.ndarray:
    """Which entries of the stack `name` the freeze is about."""
    position = _POSITION.search(name)
    layer = np.arange(stack) * patterns + (int(position[1]) if position else 0)
    return np.ones(stack, bool) if freeze.layers is None else (layer >= freeze.layers[0]) & (layer < freeze.layers[1])
