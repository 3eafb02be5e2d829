"""The gin text of a resolved run: what gin is given and what the run folder keeps. It can be run again."""

from typing import Any

from cptjax.configuration.resolution import Resolution, Setting
from cptjax.configuration.statements import Macro, Reference

WIDTH = 100


def render(resolution: Resolution, places: bool = True) -> str:
    """One gin text with imports, macros and parameters, each with the place where it was set (or without: `places`)."""
    everything = [*resolution.macros.values(), *resolution.settings]
    modules = set(resolution.modules)
    modules |= {target.module for setting in everything for target in setting.targets.values()}
    modules |= {setting.target.module for setting in everything if setting.target}
    aliases = _aliases(modules - {""})
    lines = [f"# The job {resolution.job!r}, resolved: every value it reads and where that was set.", ""]
    lines += ["from __gin__ import dynamic_registration"]
    lines += [_import(module, alias) for module, alias in aliases.items()]
    lines += ["", f"JOB = {resolution.job!r}"]
    for name, setting in sorted(resolution.macros.items()):
        if name != "JOB":
            lines.append(_assignment(name, setting, aliases, places))
    blocks: dict[str, list[str]] = {}
    for setting in resolution.settings:
        scope = f"{setting.binding.scope}/" if setting.binding.scope else ""
        function = scope + _selector(setting.target, aliases)
        line = _assignment(f"{function}.{setting.binding.argument}", setting, aliases, places)
        blocks.setdefault(function, []).append(line)
    for function in sorted(blocks):
        lines += ["", *sorted(blocks[function])]
    return "\n".join(lines) + "\n"


def _aliases(modules: set[str]) -> dict[str, str]:
    """A name for each module, unique in one file; `gin` is gin's own."""
    aliases: dict[str, str] = {}
    taken = {"gin"}
    for module in sorted(modules):
        leaf = module.rpartition(".")[2]
        name = next(name for name in (leaf, *(f"{leaf}{count}" for count in range(2, 1000))) if name not in taken)
        taken.add(name)
        aliases[module] = name
    return aliases


def _import(module: str, alias: str) -> str:
    package, _, leaf = module.rpartition(".")
    statement = f"from {package} import {leaf}" if package else f"import {leaf}"
    return statement if alias == leaf else f"{statement} as {alias}"


def _selector(target: Any, aliases: dict[str, str]) -> str:
    return f"{aliases[target.module]}.{target.path}" if target.module else target.path


def _assignment(name: str, setting: Setting, aliases: dict[str, str], places: bool) -> str:
    where = setting.binding.where
    source = f"  # {where if where.line else 'the command line'}" if places else ""
    return f"{name} = {_value(setting.binding.value, setting, aliases, 0)}{source}"


def _value(value: Any, setting: Setting, aliases: dict[str, str], indent: int) -> str:
    """A value as gin reads it; containers that do not fit on a line get one line for each item."""
    if isinstance(value, Macro):
        return f"%{value.name}"
    if isinstance(value, Reference):
        scope = f"{value.scope}/" if value.scope else ""
        call = "()" if value.evaluate else ""
        return f"@{scope}{_selector(setting.targets[value.selector], aliases)}{call}"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "1e999" if value > 0 else "-1e999"  # gin has no word for infinity
    if not isinstance(value, dict | list | tuple):
        return repr(value)
    if isinstance(value, dict):
        items = [
            f"{_value(key, setting, aliases, indent + 4)}: {_value(item, setting, aliases, indent + 4)}"
            for key, item in value.items()
        ]
    else:
        items = [_value(item, setting, aliases, indent + 4) for item in value]
    opening, closing = {dict: "{}", list: "[]", tuple: "()"}[type(value)]
    line = opening + ", ".join(items) + ("," if isinstance(value, tuple) and len(items) == 1 else "") + closing
    if len(line) + indent <= WIDTH and "\n" not in line:
        return line
    margin = " " * (indent + 4)
    return opening + "".join(f"\n{margin}{item}," for item in items) + f"\n{' ' * indent}{closing}"
