"""The arrays of a state by dotted name: a pytree is stored without its Python types and checked when it comes back."""

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from cptjax.errors import ConfigurationError

_SHOWN = 3  # names given of each kind before "and N more"


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree in flattening order, by the dotted path to each (`optimizer.0.mu.head.kernel`).

    Raises:
        ValueError: two leaves have the same dotted path (a name with a dot in it beside a nested dict).
    """
    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in named:
            raise ValueError(f"two leaves of the state are both called {name!r}")
        named[name] = leaf
    return named


def described(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Shape and dtype of each array, JSON-able."""
    return {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}


def refuse_other_arrays(
    folder: epath.Path,
    saved: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Any],
    prefix: str | tuple[str, ...] = "",
) -> None:
    """Compares the arrays that a checkpoint holds with those asked for: those whose name starts with `prefix`, or one of several.

    Raises:
        ConfigurationError: the names, a shape or a dtype differ. Orbax would cut, pad and cast without a word.
    """
    saved = {name: array for name, array in saved.items() if name.startswith(prefix)}
    expected = described(wanted)
    missing = [name for name in expected if name not in saved]
    extra = [name for name in saved if name not in expected]
    other = [
        f"{name} is {_form(saved[name])}, not {_form(expected[name])}"
        for name in expected
        if name in saved and _form(saved[name]) != _form(expected[name])
    ]
    if not (missing or extra or other):
        return
    lines = [f"The checkpoint holds other arrays than this run's: {folder}"]
    lines += [f"  it lacks: {_some(missing)}"] if missing else []
    lines += [f"  it has besides: {_some(extra)}"] if extra else []
    lines += [f"  {line}" for line in other[:_SHOWN]]
    lines += [f"  and {len(other) - _SHOWN} more of another shape or dtype"] if len(other) > _SHOWN else []
    lines.append("  Was another model or optimizer saved in it? `initialize` takes the parameters alone.")
    raise ConfigurationError("\n".join(lines))


def _form(array: Mapping[str, Any]) -> str:
    return f"{array['dtype']}{list(array['shape'])}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
