"""Code and its documentation come apart cleanly: the tree is the same but for the docstrings, and comments stay."""

import ast
import io
import sysconfig
import tokenize
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.docstrings import docstrings, parsed, without_docstrings

LIBRARY = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def stripped(text: str) -> str:
    """The tree of a text without its docstrings, bodies that held nothing else being `pass`: by ast's own account."""
    tree = ast.parse(text)
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body[:1] = [] if len(node.body) > 1 or isinstance(node, ast.Module) else [ast.Pass()]
    return ast.dump(tree)


def comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.parametrize("path", LIBRARY[:: max(1, len(LIBRARY) // 40)], ids=lambda path: path.name)
def test_the_standard_library_means_the_same_without_its_docstrings(path):
    text = path.read_bytes().decode()
    left = without_docstrings(text, ast.parse(text))
    assert ast.dump(ast.parse(left)) == stripped(text)
    assert comments(left) == comments(text)
    rest = iter(text.split("\n"))  # what is left are lines of the file in their order, each as it was
    for line in left.split("\n"):
        after_docstring = line.lstrip() if line.lstrip().startswith("#") else None
        assert line.strip() == "pass" or any(
            one == line or (after_docstring and one.endswith(after_docstring)) for one in rest
        )


BODIES = [
    "'''only'''",
    '"""é 中"""; x = "ü"',
    '"""two\n    lines"""  # a comment',
    '"""a docstring"""\n    return 1',
    "pass",
    'r"""raw"""\n    y = """no docstring"""',
    '("in" "\\n"\n     "parts")\n    try:\n        def f(): "inner"\n    finally:\n        class D: "deep"',
    "'a'\n    'b'",
    "'a'\n\f\n    z = 1",
    "'a' ;",
]


@given(
    st.lists(st.tuples(st.sampled_from(["def f():", "class C:", "async def g(a, *, b=1):"]), st.sampled_from(BODIES))),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_mixture_of_bodies_means_the_same_without_docstrings(parts, end):
    text = '"""Über das Modul."""\n' + "\n".join(f"{head}\n    {body}" for head, body in parts) + "\n"
    text = text.replace("\n", end)
    left = without_docstrings(text, ast.parse(text))
    assert ast.dump(ast.parse(left)) == stripped(text)
    assert left.count("\r") == left.count("\r\n") == (left.count("\n") if end == "\r\n" else 0)


def test_bodies_on_the_line_of_their_head():
    text = "class A: 'a'\ndef f(): 'f'; return 1  # why\nasync def g(): 'g'\n"
    assert without_docstrings(text, ast.parse(text)) == "class A: pass\ndef f(): return 1  # why\nasync def g(): pass\n"


@pytest.mark.parametrize("text", ["def f():\n    'a' \\\n    ; x = 2\n", "def f():\r    'a'\r    return 1\r"])
def test_what_cannot_be_cut_by_lines_is_not_cut(text):
    assert without_docstrings(text, ast.parse(text)) is None


def test_docstrings_are_found_wherever_they_are():
    text = (
        '"m"\nclass A:\n    "a"\n    def f(self):\n        "f"\nif x:\n    def g():\n        "g"\nelse:\n    def g2(): "g2"\n'
        'try:\n    pass\nexcept E:\n    def e(): "e"\nmatch x:\n    case 1:\n        def c(): "c"\n'
        'def h():\n    x = "no"\n    def i(): "i"; return 2\n'
    )
    assert [(found.place, found.text, found.alone) for found in docstrings(ast.parse(text))] == [
        ("", "m", False),
        ("A", "a", False),
        ("A.f", "f", True),
        ("g", "g", True),
        ("g2", "g2", True),
        ("e", "e", True),
        ("c", "c", True),
        ("h.i", "i", False),
    ]


def test_what_is_not_python_is_none_and_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(parsed(r"'\d' is 1"), ast.Module)
    for text in ("print 'x'", "a\0b", "(" * 5000):
        assert parsed(text) is None
