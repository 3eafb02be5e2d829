"""What a gin file may import, and what it may reach through an import.

A gin file names code, and people share gin files. Before anything is imported, every import of every file is held
against a list; after that, a selector may only lead to what the listed packages themselves define (`data.os.system`
does not). This keeps a stranger's code from running. It is no sandbox: a configuration still says which files a job
reads and writes.
"""

import types
from collections.abc import Iterable
from typing import Any

from cptjax.configuration.statements import Program
from cptjax.errors import ConfigurationError

PACKAGES = ("cptjax", "jax", "flax", "optax")
STANDARD = ("math", "fractions")

# Parts of those packages that would undo all this.
REFUSED = {
    "cptjax.configuration": "it imports what it is told to",
    "cptjax.main": "a job does not start another command",
    "flax.io": "it deletes files",
    "jax.experimental.serialize_executable": "it unpickles",
    "jax.numpy.load": "it can unpickle",
}


def refusal(path: str, extra: Iterable[str] = ()) -> str | None:
    """Why gin files may not reach the dotted `path` of a module, function or class; None where they may."""
    if not any(_inside(path, package) for package in (*PACKAGES, *STANDARD, *extra)):
        return "is not of a package that gin files may use"
    for refused, reason in REFUSED.items():
        if _inside(path, refused):
            return f"may not be used in gin files: {reason}"
    return None


def _inside(path: str, package: str) -> bool:
    return path == package or path.startswith(package + ".")


def check_imports(program: Program, extra: Iterable[str] = ()) -> None:
    """Refuses a program whose files import anything else. Nothing has been imported when this is called.

    Raises:
        ConfigurationError: naming each import, its file and line, and the flag that would allow it.
    """
    foreign = []
    for statement in program.imports:
        package = statement.module.split(".")[0]
        problem = refusal(statement.module, extra)
        if problem and package in (*PACKAGES, *STANDARD):
            raise ConfigurationError(f"{statement.module} {problem}.\n  {statement.where}: {statement.where.text}")
        if any(part.startswith("_") for part in statement.module.split(".")):
            raise ConfigurationError(
                f"{statement.module} is private, and gin files may not import it.\n"
                f"  {statement.where}: {statement.where.text}"
            )
        if problem:
            foreign.append(statement)
    if foreign:
        listing = "\n".join(f"    {statement.where}: {statement.where.text}" for statement in foreign)
        packages = ",".join(sorted({statement.module.split(".")[0] for statement in foreign}))
        raise ConfigurationError(
            f"gin files may not import {packages.replace(',', ', ')}: that would run code from outside cptjax.\n"
            f"{listing}\n  If you know that code and trust it: --allow_imports={packages}"
        )


def check_step(parent: Any, name: str, value: Any, extra: Iterable[str]) -> str | None:
    """Why a selector may not step from `parent` to its attribute `name`, or None where it may."""
    if name.startswith("_"):
        return "is private"
    if isinstance(value, types.ModuleType):
        return refusal(value.__name__, extra)
    home = getattr(value, "__module__", None) or getattr(parent, "__module__", None) or ""
    return refusal(home, extra) or (
        refusal(f"{parent.__name__}.{name}", extra) if isinstance(parent, types.ModuleType) else None
    )
