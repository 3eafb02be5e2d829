"""Gin files as plain statements."""

import pytest

from cptjax.configuration.flags import parse_command
from cptjax.configuration.statements import Macro, Reference, Where, parts, read_program
from cptjax.errors import ConfigurationError


def program_of(tmp_path, text, *flags):
    path = tmp_path / "a.gin"
    path.write_text(text, encoding="utf-8")
    return read_program(parse_command([f"--gin_file={path}", *flags]))


def test_statements_become_plain_data_and_nothing_is_imported(tmp_path):
    program = program_of(
        tmp_path,
        "from __gin__ import dynamic_registration\nimport nowhere.at_all as there\n"
        "X = 1\ns/t/there.f:\n  a = [%X, {'k': @u/there.g()}]\n  b = @there.h\n",
        "--gin.X=2",
    )
    assert [(each.module, each.name) for each in program.imports] == [("nowhere.at_all", "there")]
    one, a, b, two = program.bindings
    assert (one.macro, one.value, two.macro, two.value) == ("X", 1, "X", 2)
    assert program.macros["X"] is two and two.where == Where("--gin.X=2", 0, "--gin.X=2")
    assert (a.scope, a.selector, a.argument, a.key) == ("s/t", "there.f", "a", "s/t/there.f.a")
    assert list(parts(a.value)) == [Macro("X"), Reference("u", "there.g", True)]
    assert list(parts(b.value)) == [Reference("", "there.h", False)]
    assert str(a.where).endswith("a.gin:5") and a.where.text == "a = [%X, {'k': @u/there.g()}]"


def test_an_include_stands_where_it_is_written_and_keeps_its_own_imports(tmp_path):
    (tmp_path / "b.gin").write_text("import jax\nX = 2\nY = 2\n")
    program = program_of(tmp_path, f"import optax\nX = 1\nY = 1\ninclude '{tmp_path}/b.gin'\nY = 3\n")
    assert {name: binding.value for name, binding in program.macros.items()} == {"X": 2, "Y": 3}
    assert [[each.module for each in binding.imports] for binding in program.bindings] == [
        ["optax"], ["optax"], ["jax"], ["jax"], ["optax"]
    ]  # fmt: skip


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.gin").write_bytes(b"X = '\xff'\n")
    with pytest.raises(ConfigurationError, match="a.gin is not text in UTF-8"):
        read_program(parse_command([f"--gin_file={tmp_path}/a.gin"]))


def test_text_in_any_language_is_read(tmp_path):
    assert program_of(tmp_path, "X = 'données/文档'  # früher\n").macros["X"].value == "données/文档"
