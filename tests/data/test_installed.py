"""Installed packages as text: what is taken, in which order, and that code and its documentation come apart cleanly."""

import ast
import io
import sysconfig
import tokenize
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data import installed
from cptjax.data.installed import docstrings, without_docstrings
from cptjax.data.sources import content_identity, documents, find_source
from cptjax.errors import ConfigurationError

LIBRARY = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def stripped(tree: ast.Module) -> str:
    """The tree without its docstrings, bodies that held nothing else being `pass`."""
    for _, statement in docstrings(tree):
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and body[0] is statement:
                body[:1] = [ast.Pass()] if len(body) == 1 and not isinstance(node, ast.Module) else []
    return ast.dump(tree)


def comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.parametrize("path", LIBRARY[:: max(1, len(LIBRARY) // 40)], ids=lambda path: path.name)
def test_the_standard_library_means_the_same_without_its_docstrings(path):
    text = path.read_bytes().decode()
    left = without_docstrings(text, ast.parse(text))
    assert ast.dump(ast.parse(left)) == stripped(ast.parse(text))
    assert comments(left) == comments(text)


BODIES = [
    "'''only'''",
    '"""é 中"""; x = "ü"',
    '"""two\n    lines"""  # a comment',
    '"""a docstring"""\n    return 1',
    "pass",
    'r"""raw"""\n    y = """no docstring"""',
]


@given(
    st.lists(st.tuples(st.sampled_from(["def f():", "class C:", "async def g(a, *, b=1):"]), st.sampled_from(BODIES)))
)
def test_any_mixture_of_bodies_means_the_same_without_docstrings(parts):
    text = '"""Über das Modul."""\n' + "\n".join(f"{head}\n    {body}" for head, body in parts) + "\n"
    assert ast.dump(ast.parse(without_docstrings(text, ast.parse(text)))) == stripped(ast.parse(text))


def test_docstrings_are_found_wherever_they_are():
    text = """"m"\nclass A:\n    "a"\n    def f(self):\n        "f"\nif x:\n    def g():\n        "g"\ndef h():\n    x = "no"\n"""
    assert [(place, node.value.value) for place, node in docstrings(ast.parse(text))] == [
        ("", "m"),
        ("A", "a"),
        ("A.f", "f"),
        ("g", "g"),
    ]


def test_a_limit_takes_a_part_of_the_same_order_and_the_identity_tells_them_apart():
    small, large = (list(documents(find_source("x", f"python:source#{size}"))) for size in ("3e5", "6e5"))
    assert 5 < len(small) < len(large) and large[: len(small)] == small
    assert 2e5 < sum(document.size for document in small) < 5e5
    names = [document.name for document in large]
    assert len(set(names)) == len(names) and not any(name.startswith(("/", "cptjax/")) for name in names)
    assert len({document.metadata["package"] for document in large}) > 5
    identities = [content_identity(find_source("x", f"python:{rest}")) for rest in ("source#3e5", "source#300000")]
    assert identities[0] == identities[1]
    assert content_identity(find_source("x", "python:source#6e5")) != identities[0]
    assert content_identity(find_source("x", "python:documentation#3e5")) != identities[0]


def test_the_kinds_hold_what_they_say():
    prose = list(documents(find_source("x", "python:documentation#2e6")))
    assert any(document.name.startswith("python/help/") for document in prose)
    assert all(len(document.text.split()) >= 40 for document in prose)
    described = list(documents(find_source("x", "python:descriptions")))
    assert {"jax", "numpy"} & {document.metadata["package"] for document in described}
    code = list(documents(find_source("x", "python:source#1e6")))
    for document in code:
        assert not docstrings(ast.parse(document.text))


def test_the_identity_changes_with_any_byte(monkeypatch):
    before = installed.identity("source#200000")
    (file, raw), *rest = list(installed._chosen("source#200000"))
    monkeypatch.setattr(installed, "_chosen", lambda name: iter([(file, raw + b"#"), *rest]))
    assert installed.identity("source#200000") != before


@pytest.mark.parametrize(
    "item", ["python:docs", "python:source#", "python:source#-1", "python:source#1.5", "python:source#x"]
)
def test_wrong_names_are_refused(item):
    with pytest.raises(ConfigurationError, match="source 'x'"):
        find_source("x", item)


def test_it_stands_alone():
    with pytest.raises(ConfigurationError, match="stands alone"):
        find_source("x", ["python:source", "a.jsonl"])
