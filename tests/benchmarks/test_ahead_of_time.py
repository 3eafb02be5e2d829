"""Programs in processes of their own: what they find is kept, what stops them is told."""

import json

import pytest

from cptjax.benchmarks import ahead_of_time
from cptjax.benchmarks.ahead_of_time import Compiles, check_libtpu, digest_of
from cptjax.errors import ConfigurationError

PROGRAMS = """
import os, time
import jax

def settings(dumps, **told):
    return {**told, "dumps": os.path.isdir(dumps) and dumps in os.environ["LIBTPU_INIT_ARGS"], "ran": time.time_ns()}

def refuses(dumps, generation):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no room\\nfor it")

def crashes(dumps, generation):
    print("this is why", file=__import__("sys").stderr, flush=True)
    os.abort()

def raises(dumps, generation):
    raise KeyError("a bug of ours")

def sleeps(dumps, generation):
    time.sleep(100)
"""


@pytest.fixture
def compiles(tmp_path, monkeypatch):
    (tmp_path / "some_programs.py").write_text(PROGRAMS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def made(seconds: float = 100) -> Compiles:
        return Compiles(tmp_path / "kept", seconds)

    return made


def found(compiles: Compiles, name: str, source: str = "a", **settings):
    return compiles.found(f"some_programs:{name}", {"generation": "v5e", **settings}, source)


def test_what_is_found_is_kept_for_the_same_program_and_source(compiles, tmp_path):
    first = found(compiles(), "settings", blocks=[1, 2])
    assert first["blocks"] == [1, 2] and first["dumps"] is True
    assert found(compiles(), "settings", blocks=[1, 2]) == first
    assert found(compiles(), "settings", "b", blocks=[1, 2])["ran"] != first["ran"]
    (one, _) = (tmp_path / "kept").iterdir()
    assert one.name.startswith("settings-v5e-") and json.loads(one.read_text())["settings"]["blocks"] == [1, 2]


def test_a_program_that_the_compiler_refuses_is_a_result(compiles, tmp_path):
    assert found(compiles(), "refuses") == {"refused": "RESOURCE_EXHAUSTED: no room\nfor it"}
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize(
    "name, seconds, why",
    [("crashes", 100, "SIGABRT"), ("raises", 100, "a bug of ours"), ("sleeps", 2, "more than 2 s")],
)
def test_a_child_that_crashes_or_takes_too_long_is_tried_again_in_the_next_run(compiles, tmp_path, name, seconds, why):
    own = compiles(seconds=seconds)
    said = found(own, name)["failed"]
    assert why in said
    assert found(own, name)["failed"] == said  # not in this one
    assert not (tmp_path / "kept").exists()


def test_without_libtpu_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(ahead_of_time.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r'pip install "cptjax\[aot\]"'):
        check_libtpu()


def test_a_digest_is_of_all_files_of_a_package():
    assert digest_of("cptjax.kernels.attention") != digest_of("cptjax.kernels.attention.plan")
    assert digest_of("cptjax.errors") == digest_of("cptjax.errors")
