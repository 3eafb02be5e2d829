"""cptjax: continued pretraining of language models in JAX. Importing it imports nothing else.

cptjax.run("gin/recipes/reuse.gin", HF_CHECKPOINT=..., ...)   a job, as the command line runs it (docs/python.md)
cptjax.load_model("runs/first")                               a checkpoint, to score texts and to continue them
cptjax.scaling.fit("runs.csv", law="chinchilla")              a scaling law fitted to a table of runs
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {"run": "cptjax.api", "load_model": "cptjax.api", "scaling": None}  # None: a package of ours


def __getattr__(name: str) -> Any:
    """The names above, imported when they are first asked for: the command's --help answers without JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cptjax' has no attribute {name!r}")
    home = _HOMES[name]
    return importlib.import_module(f"cptjax.{name}") if home is None else getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
