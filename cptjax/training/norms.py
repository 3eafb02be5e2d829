"""Norms of gradients, parameters and their changes by group of layers: where a run goes wrong first."""

from collections.abc import Mapping

import jax
import optax

from cptjax.models.model import Params

_GROUPS = (("attention", "attention"), ("mlp", "mlp"), ("embedding", "embedding"), ("head", "head"))


def group_of(name: str) -> str:
    """embedding, attention, mlp, norms or head: the group of the weight of this name."""
    parts = name.split(".")
    if parts[-1] == "scale" or any("norm" in part for part in parts):
        return "norms"
    return next((group for part, group in _GROUPS if part in parts), "other")


def group_norms(kind: str, values: Params) -> Mapping[str, jax.Array]:
    """`<kind>_norm/<group>` -> the norm of all of the group's values, float32 scalars."""
    groups: dict[str, Params] = {}
    for name, value in values.items():
        groups.setdefault(group_of(name), {})[name] = value
    return {f"{kind}_norm/{group}": optax.tree.norm(some) for group, some in sorted(groups.items())}
