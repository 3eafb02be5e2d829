"""Gin files as plain statements, parsed without importing or registering anything.

gin's own parser reads the syntax; references and macros become the small records below instead of live objects, so that
a configuration can be checked, and refused, before any code that it names is imported.
"""

import dataclasses
import difflib
import io
import os
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

import cptjax
from cptjax.configuration.flags import Command
from cptjax.errors import ConfigurationError

REPOSITORY = Path(cptjax.__file__).parents[1]
MODEL, MODELS = "MODEL", "gin/models"  # the macro that names a model, and the folder of the gin files it names


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%NAME` in a value."""

    name: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/module.function`, or with `()` when `evaluate`, in a value."""

    scope: str
    selector: str
    evaluate: bool


@dataclasses.dataclass(frozen=True)
class Where:
    """Where a statement was written: a file and line, or a flag (line 0)."""

    source: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclasses.dataclass(frozen=True)
class Import:
    """`import module`, `from package import module`, with or without `as`; `name` is what it binds in its file."""

    module: str
    name: str
    is_from: bool
    where: Where


@dataclasses.dataclass(frozen=True)
class Binding:
    """`scope/selector.argument = value`; a macro has no argument. `imports`: those of the file it stands in."""

    scope: str
    selector: str
    argument: str
    value: Any
    where: Where
    imports: tuple[Import, ...] = ()
    from_flag: bool = False

    @property
    def macro(self) -> str | None:
        """The macro's name with its scope, or None for a parameter of a function."""
        if self.argument:
            return None
        return f"{self.scope}/{self.selector}" if self.scope else self.selector

    @property
    def key(self) -> str:
        """The left-hand side as it was written."""
        return self.macro or f"{self.scope + '/' if self.scope else ''}{self.selector}.{self.argument}"


@dataclasses.dataclass
class Program:
    """All statements of a run in the order in which they count: files with their includes in place, then flags."""

    bindings: list[Binding] = dataclasses.field(default_factory=list)
    imports: list[Import] = dataclasses.field(default_factory=list)
    lines: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # of each file that was read
    model: Binding | None = None  # the MODEL that was read in

    @property
    def macros(self) -> dict[str, Binding]:
        """The binding in force (the last one) of each macro."""
        return {binding.macro: binding for binding in self.bindings if binding.macro}


def parts(value: Any) -> Iterator[Macro | Reference]:
    """Every macro and reference in a value, however deep."""
    if isinstance(value, Macro | Reference):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from parts(key)
            yield from parts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from parts(item)


def read_program(command: Command) -> Program:
    """Parses the command's gin files, whatever they include, the model that `MODEL` names, and the `--gin.` flags.

    Raises:
        ConfigurationError: a file that is not there, an include that includes itself, a value that cannot be read.
    """
    program = Program()
    for name in command.gin_files:
        _read_file(name, command.search_paths, program, ())
    flags = [_read_flag(name, value) for name, value in command.bindings]
    for binding in reversed([*program.bindings, *flags]):
        if binding.macro == MODEL:
            if isinstance(binding.value, str):
                program.model = binding
                _read_model(binding, command.search_paths, program)
            break
    program.bindings.extend(flags)
    return program


def _read_model(named: Binding, search_paths: Sequence[str], program: Program) -> None:
    """`MODEL = "name"` reads gin/models/name.gin as if the last gin file included it; flags may still change its parts."""
    known = sorted(path.stem for path in (REPOSITORY / MODELS).glob("*.gin"))
    try:
        _read_file(f"{MODELS}/{named.value}.gin", search_paths, program, ())
    except ConfigurationError as error:
        if named.value in known or not str(error).startswith("there is no gin file"):
            raise
        close = difflib.get_close_matches(named.value, known, n=1)
        hint = f"\n  Did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(
            f"MODEL = {named.value!r}: there is no {MODELS}/{named.value}.gin.\n  {named.where}{hint}\n"
            f"  Models: {', '.join(known)}"
        ) from None


def find_gin_file(name: str, search_paths: Sequence[str], including: str | None = None) -> str:
    """The path of a gin file, from the current folder, the search paths or the repository; at last beside its includer.

    Raises:
        ConfigurationError: listing every place that was tried.
    """
    if "://" in name or os.path.isabs(name):
        tried = [name]
    else:
        folders = [os.curdir, *search_paths, str(REPOSITORY)]
        folders += [os.path.dirname(including) or os.curdir] if including else []
        joined = (os.path.join(folder, name) for folder in folders)
        tried = list(dict.fromkeys(path if "://" in path else os.path.normpath(path) for path in joined))
    for path in tried:
        if _epath(path).exists() if "://" in path else os.path.isfile(path):
            return path
    wanted_by = f" (included by {including})" if including else ""
    listing = "\n".join(f"    {path}" for path in tried)
    beside = [str(near) for path in tried if "://" not in path for near in sorted(Path(path).parent.glob("*.gin"))]
    close = difflib.get_close_matches(name, beside, n=1) or difflib.get_close_matches(tried[0], beside, n=1)
    hint = f"\n  Did you mean {close[0]}?" if close else ""
    raise ConfigurationError(f"there is no gin file {name}{wanted_by}.\n  Looked for:\n{listing}{hint}")


def _epath(path: str) -> Any:
    from etils import epath  # only for remote paths

    return epath.Path(path)


def _read_file(name: str, search_paths: Sequence[str], program: Program, open_files: tuple[str, ...]) -> None:
    """Appends the statements of one file, and of what it includes, to `program`."""
    path = find_gin_file(name, search_paths, open_files[-1] if open_files else None)
    if path in open_files:
        raise ConfigurationError("these gin files include each other:\n    " + "\n    ".join([*open_files, path]))
    try:
        text = _epath(path).read_text() if "://" in path else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not text in UTF-8: byte {error.start} cannot be decoded.") from None
    lines = program.lines[path] = text.split("\n")
    imports: list[Import] = []
    own: list[int] = []  # indices in program.bindings of what stands in this file itself
    for statement in _statements(text, path):
        line = statement.location.line_num
        where = Where(path, line, lines[line - 1].strip() if line <= len(lines) else "")
        if isinstance(statement, config_parser.ImportStatement):
            if not statement.module.startswith("__gin__."):
                imports.append(Import(statement.module, statement.bound_name(), statement.is_from, where))
        elif isinstance(statement, config_parser.IncludeStatement):
            _read_file(statement.filename, search_paths, program, (*open_files, path))
        elif isinstance(statement, config_parser.BindingStatement):
            own.append(len(program.bindings))
            program.bindings.append(Binding(*statement[:4], where))
    for index in own:
        program.bindings[index] = dataclasses.replace(program.bindings[index], imports=tuple(imports))
    program.imports.extend(imports)


class _Plain(config_parser.ParserDelegate):
    """Makes the records above of what gin's parser finds."""

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Reference:
        scope, _, selector = scoped_selector.rpartition("/")
        return Reference(scope, selector, evaluate)

    def macro(self, name: str) -> Macro:
        return Macro(name)


def _statements(text: str, source: str) -> Iterator[Any]:
    """gin's statements, or a ConfigurationError that shows the line where reading stopped."""
    lines = text.rstrip("\n").split("\n")
    try:
        yield from config_parser.ConfigParser(io.StringIO(text), _Plain())
    except (SyntaxError, tokenize.TokenError) as error:
        if isinstance(error, SyntaxError):
            message, line = error.msg, error.lineno or 1
        else:
            message, line = f"{error.args[0]}: a bracket or a quote is never closed", error.args[1][0]
        if token := re.search(r"Failed to parse token '(.*)'", message, re.DOTALL):
            message = f"{token[1]} is not a value; a string is quoted: '{token[1]}'. {_capital(token[1])}"
        line = min(line, len(lines))  # some versions of Python report the end of the file as a line after the last
        raise ConfigurationError(f"{source}:{line}: {message.rstrip()}\n    {lines[line - 1].strip()}") from None


def _capital(word: str) -> str:
    """The hint for true, false, none and null."""
    meant = {"true": "True", "false": "False", "none": "None", "null": "None"}.get(word.lower())
    return f"Did you mean {meant}?" if meant and meant != word else ""


def _read_flag(name: str, value: str) -> Binding:
    """One `--gin.NAME=VALUE`."""
    flag = f"--gin.{name}={value}"
    if not re.fullmatch(r"([A-Za-z_]\w*/)*[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name):
        raise ConfigurationError(f"cannot read {flag}\n  Write --gin.NAME=..., or --gin.scope/function.argument=...")
    try:
        statements = list(_statements(f"{name} = {value}\n", flag))
    except ConfigurationError:
        statements = []
    if len(statements) != 1 or not isinstance(statements[0], config_parser.BindingStatement):
        if not value.strip():
            hint = "It has no value."
        elif capital := _capital(value.strip()):
            hint = capital
        elif re.search(r"['\"\[\]{}()@%]", value):
            hint = "It is read as Python would: numbers, quoted strings, lists, dicts, @function, %MACRO."
        else:
            hint = f"Strings need quotes that survive the shell:\n    --gin.{name}=\"'{value}'\""
        raise ConfigurationError(f"cannot read the value of {flag}\n  {hint}")
    return Binding(*statements[0][:4], Where(flag, 0, flag), from_flag=True)
