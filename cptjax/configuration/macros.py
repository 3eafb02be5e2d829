"""The macro rules: one that nothing references is a mistake; one that is required and not given is asked for."""

from cptjax.configuration.names import nearest, shown
from cptjax.configuration.statements import MODEL, Macro, Program, Where, parts
from cptjax.errors import ConfigurationError

USED_BY_MAIN = ("JOB", MODEL)
REQUIRED = ("gin.REQUIRED", "REQUIRED")


def is_required(value: object) -> bool:
    """Whether a value is `%gin.REQUIRED`, or has it somewhere in a list or dict."""
    return any(isinstance(part, Macro) and part.name in REQUIRED for part in parts(value))


def check_unreferenced(program: Program) -> None:
    """Refuses macros that are set and never referenced: gin accepts them silently, and they are misspelt.

    Raises:
        ConfigurationError: each such macro, where it was set, and the nearest names that are referenced.
    """
    referenced = set(USED_BY_MAIN)
    for binding in program.bindings:
        referenced.update(part.name for part in parts(binding.value) if isinstance(part, Macro))
    lost = {name: binding for name, binding in program.macros.items() if name not in referenced}
    if not lost:
        return
    known = sorted(referenced - set(REQUIRED))
    one = len(lost) == 1
    lines = [
        f"the macro{'' if one else 's'} {', '.join(lost)} {'is' if one else 'are'} set, "
        f"but nothing uses {'it' if one else 'them'}."
    ]
    for name, binding in lost.items():
        lines.append(f"    {shown(binding.where)}" + nearest(name, known).replace("\n  ", "\n      "))
    lines.append(f"  Macros in use: {', '.join(known)}")
    raise ConfigurationError("\n".join(lines))


def check_circles(program: Program) -> None:
    """Refuses macros that are defined by themselves, however indirectly.

    Raises:
        ConfigurationError: the circle, and where each macro of it is set.
    """
    macros = program.macros
    clear: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = path[path.index(name) :]
            listing = "\n".join(f"    {shown(macros[each].where)}" for each in circle)
            raise ConfigurationError(f"the macro {name} is defined by itself.\n{listing}")
        if name in clear or name not in macros:
            return
        for part in parts(macros[name].value):
            if isinstance(part, Macro):
                visit(part.name, (*path, name))
        clear.add(name)

    for name in macros:
        visit(name, ())


def final_value(program: Program, name: str) -> object:
    """The value of a macro, through macros that only name another.

    Raises:
        KeyError: it, or the one it names, is not set, or required. (Circles are refused before.)
    """
    macros = program.macros
    value: object = Macro(name)
    while isinstance(value, Macro):
        value = macros[value.name].value
    return value


def comment_of(program: Program, where: Where) -> str:
    """What a file says about its line: the comment at its end, or a short one right above it."""
    lines = program.lines.get(where.source, [])
    if not 0 < where.line <= len(lines):
        return ""
    _, _, trailing = lines[where.line - 1].partition("#")
    above: list[str] = []
    for line in reversed(lines[: where.line - 1]):
        if not line.startswith("#") or len(above) == 2:
            break
        above.insert(0, line.lstrip("# ").rstrip())
    return trailing.strip() or " ".join(above)
