"""The gin text of a run: what it says is what was given, and reading it again changes nothing."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cptjax.jobs
from cptjax.configuration.flags import parse_command
from cptjax.configuration.rendering import render
from cptjax.configuration.resolution import job_name, resolve_program
from cptjax.configuration.statements import read_program

JOB = '''
def echo(value=None, other=None, *, dry_run=False):
    """Does nothing."""

def made(a=1, b=2):
    return a, b
'''


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "echo.py").write_text(JOB)
    paths = list(cptjax.jobs.__path__)
    cptjax.jobs.__path__.append(str(folder))
    yield folder
    cptjax.jobs.__path__[:] = paths


def text_of(path) -> str:
    program = read_program(parse_command([f"--gin_file={path}"]))
    return render(resolve_program(program, job_name(program)))


def text_from(folder, body: str) -> str:
    path = folder / "a.gin"
    path.write_text(f"from cptjax.jobs import echo\nJOB = 'echo'\n{body}\n", encoding="utf-8")
    return text_of(path)


def settings_of(text: str) -> list[str]:
    return [line.partition("  #")[0] for line in text.splitlines() if not line.startswith("#")]


literals = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=12), inner, max_size=6)
    ),
    max_leaves=20,
)


def literal(value) -> str:
    """A Python literal that gin reads: infinity has no name there."""
    return repr(value).replace("inf", "1e999") if isinstance(value, float) and math.isinf(value) else repr(value)


@given(literals)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_survives_being_written_and_read(jobs, value):
    if "inf" in repr(value) and not isinstance(value, float):
        value = None
    path = jobs / "values.gin"
    path.write_text(f"from cptjax.jobs import echo\nJOB = 'echo'\nX = {literal(value)}\necho.echo.value = %X\n")
    first = text_of(path)
    path.write_text(first)
    assert read_program(parse_command([f"--gin_file={path}"])).macros["X"].value == value


def test_names_from_several_files_get_one_name_each(jobs):
    (jobs / "b.gin").write_text("from jax import nn as echo\ntwo/echo.gelu.approximate = False\nT = @two/echo.gelu\n")
    text = text_from(jobs, f"import jax.nn\ninclude '{jobs}/b.gin'\necho.echo.value = [%T, @jax.nn.gelu]\n")
    assert "from jax import nn\n" in text and "from cptjax.jobs import echo\n" in text
    assert "T = @two/nn.gelu  # " in text and "two/nn.gelu.approximate = False" in text
    path = jobs / "again.gin"
    path.write_text(text)
    assert settings_of(text_of(path)) == settings_of(text)


def test_what_the_job_does_not_read_is_left_out_and_the_last_value_stands(jobs):
    text = text_from(
        jobs,
        "A = 1\nA = 2\nB = 3\nUNUSED = @lost/echo.made()\nlost/echo.made.a = %B\nlost/echo.made.b = %UNUSED\n"
        "echo.echo.value = %A\necho.echo.value = @x/echo.made()\nx/echo.made.a = %A\ny/echo.made.a = 7\n",
    )
    assert "A = 2" in text and "x/echo.made.a = %A" in text and "echo.echo.value = @x/echo.made()" in text
    assert "UNUSED" not in text and "B = 3" not in text and "y/echo" not in text and "A = 1" not in text


def test_a_macro_is_evaluated_in_the_scope_of_its_name(jobs):
    """gin's rule: `%RATE` calls what RATE refers to under the scope RATE, so its scoped parameters count."""
    text = text_from(jobs, "RATE = @echo.made()\nRATE/echo.made.a = 5\necho.echo.value = %RATE\n")
    assert "RATE/echo.made.a = 5" in text


def test_a_singleton_is_gins_own(jobs):
    text = text_from(
        jobs, "echo.echo.value = @once/gin.singleton()\nonce/gin.singleton.constructor = @echo.made\necho.made.a = 4\n"
    )
    assert "once/gin.singleton.constructor = @echo.made" in text and "echo.made.a = 4" in text


def test_modules_that_only_register_something_stay_imported(jobs):
    assert "from jax import scipy\n" in text_from(jobs, "import jax.scipy\necho.echo.value = 1\n")
