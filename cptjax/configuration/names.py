"""From selectors (`train.train`, `schedules.cosine`) to the functions and classes they name."""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable, Iterable
from typing import Any

from cptjax.configuration.imports import check_step
from cptjax.configuration.statements import Import, Where
from cptjax.errors import ConfigurationError

# Which extra of the project brings a package that some module of ours needs.
EXTRAS = {"lm_eval": "harness"} | dict.fromkeys(("seqio", "tensorflow", "tensorflow_datasets", "apache_beam"), "text")


@dataclasses.dataclass(frozen=True)
class Target:
    """A function or class with the name it goes by: its module (empty for gin's own), and its path in there."""

    module: str
    path: str
    object: Any = dataclasses.field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """`cptjax.jobs.train.train`."""
        return f"{self.module}.{self.path}" if self.module else self.path

    @property
    def short(self) -> str:
        """`train.train`, as a gin file would say it."""
        return f"{self.module.rpartition('.')[2]}.{self.path}" if self.module else self.path


def load(statement: Import) -> types.ModuleType:
    """Imports the module of an import statement.

    Raises:
        ConfigurationError: no such module (with the nearest), or a package it needs is not installed.
    """
    return load_module(statement.module, f"{statement.where}: {statement.where.text}")


def load_module(module: str, wanted_by: str) -> types.ModuleType:
    """Imports `module`; `wanted_by` says in the message who asked for it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(missing + "."):
            raise ConfigurationError(_no_module(module, wanted_by)) from None
        extra = EXTRAS.get(missing.split(".")[0])
        install = f"pip install 'cptjax[{extra}]'" if extra else f"pip install {missing.split('.')[0]}"
        raise ConfigurationError(
            f"{module} needs the package {missing.split('.')[0]}, which is not installed.\n  {wanted_by}\n  {install}"
        ) from None


def _no_module(module: str, wanted_by: str) -> str:
    parent, _, leaf = module.rpartition(".")
    hint = ""
    if parent:
        try:
            package = importlib.import_module(parent)
        except ModuleNotFoundError:
            return f"there is no module {module}.\n  {wanted_by}"
        if hasattr(package, leaf):
            above, _, name = parent.rpartition(".")
            hint = f"\n  {leaf} is not a module. Write `from {above} import {name}` and then {name}.{leaf}."
        else:
            siblings = [found.name for found in pkgutil.iter_modules(getattr(package, "__path__", []))]
            hint = nearest(leaf, siblings)
    return f"there is no module {module}.\n  {wanted_by}{hint}"


def resolve(selector: str, imports: Iterable[Import], where: Where, allowed: Iterable[str] = ()) -> Target:
    """The function or class that `selector` names, through the imports of the file it stands in.

    Raises:
        ConfigurationError: nothing of that name (with the nearest ones), a module, or out of what gin files may reach.
    """
    root, *path = selector.split(".")
    if root == "gin":
        return _builtin(selector, where)
    symbols = {statement.name: statement for statement in imports}
    if root not in symbols:
        hint = nearest(root, symbols) or f"\n  Import it first: from cptjax.... import {root}"
        raise ConfigurationError(f"{selector} is unknown: no import gives {root}.\n  {shown(where)}{hint}")
    statement = symbols[root]
    value: Any = load(statement)
    if statement.name == statement.module.split(".")[0]:  # `import a.b` binds a
        value = importlib.import_module(statement.name)
    module, names = value, []
    for name in path:
        if not hasattr(value, name):
            known = [near for near in dir(value) if not check_step(value, near, getattr(value, near, None), allowed)]
            raise ConfigurationError(
                f"{selector} is unknown: {root if value is module and not names else label(value)} has no {name}.\n"
                f"  {shown(where)}{nearest(name, known)}"
            )
        parent, value = value, getattr(value, name)
        if problem := check_step(parent, name, value, allowed):
            raise ConfigurationError(f"{selector} {problem}.\n  {shown(where)}")
        if isinstance(value, types.ModuleType):
            module, names = value, []
        else:
            names.append(name)
    if not names:
        functions = [name for name in vars(module) if is_own(module, name)]
        raise ConfigurationError(
            f"{selector} is a module, not a function.\n  {shown(where)}\n  It has: {', '.join(functions) or 'nothing'}"
        )
    if not callable(value):
        raise ConfigurationError(f"{selector} is a {type(value).__name__}, not a function or class.\n  {shown(where)}")
    return Target(module.__name__, ".".join(names), value)


def _builtin(selector: str, where: Where) -> Target:
    from gin import config

    if selector != "gin.singleton":
        raise ConfigurationError(f"{selector} is unknown: gin itself offers gin.singleton.\n  {shown(where)}")
    return Target("", selector, config.singleton)


def check_argument(target: Target, argument: str, where: Where) -> None:
    """Refuses an argument that `target` does not have, with the nearest of those it has."""
    names, anything = arguments(target.object)
    if argument not in names and not anything:
        hint = nearest(argument, names) or "\n  It has: " + (", ".join(names) or "none")
        raise ConfigurationError(f"{target.short} has no parameter {argument}.\n  {shown(where)}{hint}")


def arguments(function: Callable[..., Any]) -> tuple[dict[str, bool], bool]:
    """The names that can be bound, each with whether it must be; and whether any other name is taken too."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return {}, False
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {each.name: each.default is each.empty for each in parameters if each.kind in kinds}
    return names, any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def nearest(name: str, known: Iterable[str]) -> str:
    """The line `Did you mean ...?`, or an empty string where nothing is near."""
    known = list(known)
    folded = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.6)
    return f"\n  Did you mean {' or '.join(folded[other] for other in near)}?" if near else ""


def shown(where: Where) -> str:
    """A place and what is written there."""
    return f"{where}: {where.text}" if where.line else str(where)


def label(value: Any) -> str:
    """A module's or class's name, for messages."""
    return getattr(value, "__name__", type(value).__name__)


def is_own(module: types.ModuleType, name: str) -> bool:
    """Whether `name` is a public function or class that `module` itself defines."""
    value = getattr(module, name)
    return not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
