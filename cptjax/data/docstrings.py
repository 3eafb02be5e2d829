"""Python source taken apart: its docstrings, and the code without them. Text is parsed, nothing is imported."""

import ast
import dataclasses
import warnings
from collections.abc import Iterator

_HAVE_DOCSTRINGS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_BODIES = ("body", "handlers", "orelse", "finalbody", "cases")  # where statements stand, in the order of the file


@dataclasses.dataclass(frozen=True)
class Docstring:
    """Where a docstring stands: `place` is dotted ("Class.method", "" for the module's).

    `alone`: it is all that a class or function has.
    """

    place: str
    statement: ast.Expr
    alone: bool

    @property
    def text(self) -> str:
        return self.statement.value.value  # type: ignore[attr-defined]


def parsed(text: str) -> ast.Module | None:
    """The tree of a source; None for what is not Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def docstrings(tree: ast.Module) -> Iterator[Docstring]:
    """Every docstring of a module, in the order of the file."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, place = waiting.pop()
        if isinstance(node, _HAVE_DOCSTRINGS):
            if not isinstance(node, ast.Module):
                place = f"{place}.{node.name}".lstrip(".")
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield Docstring(place, first, len(node.body) == 1 and not isinstance(node, ast.Module))
        children = [child for name in _BODIES for child in _statements(node, name)]
        waiting += [(child, place) for child in reversed(children)]


def without_docstrings(text: str, tree: ast.Module) -> str | None:
    """The source with its docstrings taken out, else as it was; a body that held nothing else becomes `pass`.

    Comments stay. None where the text cannot be cut by lines: a lone carriage return ends a line for Python alone, and a
    docstring's last line goes on after a backslash.
    """
    if text.count("\r") != text.count("\r\n"):
        return None
    lines = text.encode().split(b"\n")  # ast counts columns in bytes
    for docstring in reversed(list(docstrings(tree))):
        statement = docstring.statement
        first, last = statement.lineno - 1, statement.end_lineno - 1  # type: ignore[operator]
        before, after = lines[first][: statement.col_offset], lines[last][statement.end_col_offset :]
        if docstring.alone:
            lines[first : last + 1] = [before + b"pass" + after]
            continue
        rest = after.lstrip(b" \t;\r\f")  # another statement, or a comment, on the docstring's last line
        if rest.startswith(b"\\"):
            return None
        lines[first : last + 1] = [before + rest] if rest else []
    return b"\n".join(lines).decode()


def _statements(node: ast.AST, name: str) -> list[ast.AST]:
    found = getattr(node, name, None)  # a lambda's body is an expression, not a list
    return found if isinstance(found, list) else []
