"""Scaling laws of pretraining and continued pretraining: the formulas, how they are fitted, what to distrust, what to buy.

`cptjax.scaling.fit` (table_fit.py) fits one to a table of runs in one call.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`fit`, imported when it is first asked for: laws are fitted with JAX and scipy."""
    if name != "fit":
        raise AttributeError(f"module 'cptjax.scaling' has no attribute {name!r}")
    from cptjax.scaling.table_fit import fit

    return fit


def __dir__() -> list[str]:
    return sorted([*globals(), "fit"])
