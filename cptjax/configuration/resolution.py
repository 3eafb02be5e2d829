"""From a parsed program to what one job reads of it: names resolved, the last binding in force, nothing missing."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from cptjax.configuration import catalogue
from cptjax.configuration.macros import REQUIRED, comment_of, final_value, is_required
from cptjax.configuration.names import Target, arguments, check_argument, load, load_module, nearest, resolve, shown
from cptjax.configuration.statements import MODELS, Binding, Import, Macro, Program, Reference, parts
from cptjax.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Setting:
    """One binding in force. `target` is None for a macro; `targets` resolves the references in its value."""

    binding: Binding
    target: Target | None
    targets: dict[str, Target]


@dataclasses.dataclass(frozen=True)
class Resolution:
    """What the job reads: its function, macros by name, settings of parameters; and every module that is imported."""

    job: str
    function: Any
    modules: frozenset[str]
    macros: dict[str, Setting]
    settings: list[Setting]


def job_name(program: Program) -> str:
    """The name of the job that `JOB` chooses.

    Raises:
        ConfigurationError: no JOB, or one that does not exist, with the nearest.
    """
    known = catalogue.jobs()
    listing = "\n  Jobs: " + (", ".join(known) or "none found")
    try:
        job = final_value(program, "JOB")
    except KeyError:
        raise ConfigurationError(
            f"no gin file says which job to run (JOB = 'train').{nearest('JOB', set(program.macros) - {'JOB'})}\n"
            f"  Add a recipe, or the job's own file: --gin_file=gin/jobs/train.gin{listing}"
        ) from None
    if not isinstance(job, str) or job not in known:
        where = program.macros["JOB"].where
        raise ConfigurationError(f"there is no job {job!r}.\n  {shown(where)}{nearest(str(job), known)}{listing}")
    return job


def resolve_program(program: Program, job: str, allowed: Iterable[str] = ()) -> Resolution:
    """Resolves every name of `program`, then keeps what `job` reaches.

    Reached are the job's function, what its parameters are bound to, and so on: functions named by references, and
    macros. Scoped bindings count where their scope is entered somewhere (by a reference or by a macro of that name).

    Raises:
        ConfigurationError: an unknown name; required values that are missing, all of them; a flag that has no effect.
    """
    module = load_module(f"cptjax.jobs.{job}", f"JOB = {job!r}")
    root = Target(module.__name__, job, getattr(module, job))
    for statement in program.imports:  # also those that no selector uses: importing may register tasks
        load(statement)
    settings = _resolve_all(program, root, tuple(allowed))
    reached = _reach(root, settings)
    _check_missing(program, job, reached)
    _check_flags(job, settings, reached)
    kept = reached.settings.values()
    if program.model is not None and not any(
        each.binding.where.source.endswith(f"{MODELS}/{program.model.value}.gin") for each in kept
    ):
        raise ConfigurationError(
            f"MODEL = {program.model.value!r} is set, but this configuration takes its model from elsewhere.\n"
            f"  {shown(program.model.where)}\n  MODEL is for runs that start from random weights."
        )
    macros = {each.binding.macro: each for each in kept if each.binding.macro}
    modules = frozenset(statement.module for statement in program.imports)
    return Resolution(job, root.object, modules, macros, [each for each in kept if each.target])


def _resolve_all(program: Program, root: Target, allowed: tuple[str, ...]) -> dict[Any, Setting]:
    """The last setting of each (scope, target, argument) and of each macro, in the order of first mention."""
    known: dict[int, Target] = {id(root.object): root}

    def target_of(selector: str, binding: Binding) -> Target:
        imports: Iterable[Import] = binding.imports
        if binding.from_flag:  # flags may shorten a name that the files use, and see every file's imports
            tail = [target for target in known.values() if f".{target.name}".endswith(f".{selector}")]
            if len(tail) > 1:
                names = ", ".join(target.name for target in tail)
                raise ConfigurationError(f"{selector} may be any of {names}.\n  {shown(binding.where)}")
            if tail:
                return tail[0]
            imports = program.imports
            if not any(selector.split(".")[0] == statement.name for statement in imports):
                shorts = sorted({target.short for target in known.values()})
                paths = [target.path for target in known.values()]
                hint = nearest(selector, [*shorts, *paths]) or f"\n  In use: {', '.join(shorts)}"
                raise ConfigurationError(f"{selector} is unknown.\n  {shown(binding.where)}{hint}")
        target = resolve(selector, imports, binding.where, allowed)
        return known.setdefault(id(target.object), target)

    settings: dict[Any, Setting] = {}
    for binding in program.bindings:
        references = {part.selector for part in parts(binding.value) if isinstance(part, Reference)}
        targets = {selector: target_of(selector, binding) for selector in sorted(references)}
        if binding.macro:
            settings[binding.macro] = Setting(binding, None, targets)
            continue
        target = target_of(binding.selector, binding)
        check_argument(target, binding.argument, binding.where)
        settings[binding.scope, id(target.object), binding.argument] = Setting(binding, target, targets)
    return settings


@dataclasses.dataclass
class _Reached:
    """What the job reads, growing until nothing is added."""

    functions: dict[int, Target]
    evaluated: dict[int, tuple[Target, str]]  # functions that gin itself calls, each with who asks for it
    scopes: set[str] = dataclasses.field(default_factory=set)
    macro_users: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    settings: dict[Any, Setting] = dataclasses.field(default_factory=dict)

    def includes(self, setting: Setting) -> bool:
        """Whether the job reads this setting, by what is known so far."""
        if setting.target is None:
            return setting.binding.macro in self.macro_users
        scope = setting.binding.scope
        return id(setting.target.object) in self.functions and self.scopes.issuperset(scope.split("/") if scope else ())

    def add(self, key: Any, setting: Setting) -> None:
        """Takes a setting in, with what its value names."""
        self.settings[key] = setting
        where = setting.binding.where
        for part in parts(setting.binding.value):
            if isinstance(part, Macro):
                user = f"{setting.target.short}.{setting.binding.argument}" if setting.target else setting.binding.macro
                self.macro_users.setdefault(part.name, []).append(f"{user} ({where})")
                self.scopes.update(part.name.split("/"))  # gin evaluates a macro in the scope of its name
                continue
            target = setting.targets[part.selector]
            self.functions[id(target.object)] = target
            self.scopes.update(part.scope.split("/") if part.scope else ())
            if part.evaluate:
                self.evaluated.setdefault(id(target.object), (target, shown(where)))


def _reach(root: Target, settings: dict[Any, Setting]) -> _Reached:
    """Everything that a call of `root` under gin reads."""
    reached = _Reached({id(root.object): root}, {id(root.object): (root, "main")})
    growing = True
    while growing:
        new = [key for key, each in settings.items() if key not in reached.settings and reached.includes(each)]
        for key in new:
            reached.add(key, settings[key])
        growing = bool(new)
    return reached


def _check_missing(program: Program, job: str, reached: _Reached) -> None:
    """Asks for everything that is required and not given, at once."""
    macros = program.macros
    missing: list[list[str]] = []
    for name in sorted(set(reached.macro_users) - set(REQUIRED)):
        given = macros.get(name)
        if given is not None and not is_required(given.value):
            continue
        comment = comment_of(program, given.where) if given else ""
        lines = [f"{name}: {comment}" if comment else name]
        lines.append(f"    used by {', '.join(dict.fromkeys(reached.macro_users[name]))}")
        if given is None and (hint := nearest(name, macros)):
            lines.append(f"  {hint.strip()}")
        missing.append(lines)
    bound = set()
    for setting in reached.settings.values():
        if setting.target is None:
            continue
        bound.add((id(setting.target.object), setting.binding.argument))
        if is_required(setting.binding.value):
            missing.append([setting.binding.key, f"    required in {setting.binding.where}"])
    for target, caller in reached.evaluated.values():
        for argument, must in arguments(target.object)[0].items():
            if must and (id(target.object), argument) not in bound:
                missing.append([f"{target.short}.{argument}", f"    {target.short} is called by {caller}"])
    if missing:
        what = "a required setting is" if len(missing) == 1 else f"{len(missing)} required settings are"
        listing = "\n".join(f"  {line}" for lines in missing for line in lines)
        raise ConfigurationError(
            f"{what} missing for the job {job!r}:\n{listing}\n"
            "  Set them in a gin file, or as --gin.NAME=VALUE (a string: --gin.NAME=\"'text'\")."
        )


def _check_flags(job: str, settings: dict[Any, Setting], reached: _Reached) -> None:
    """A parameter set by a flag that the job never reads is a mistake, like a misspelt macro."""
    for key, setting in settings.items():
        if setting.binding.from_flag and setting.target and key not in reached.settings:
            scope = f" in the scope {setting.binding.scope}" if setting.binding.scope else ""
            raise ConfigurationError(
                f"{setting.binding.key} is set, but the job {job!r} does not use {setting.target.short}{scope}.\n"
                f"  {setting.binding.where}"
            )
