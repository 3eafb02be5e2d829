"""Jobs that one process of several does, and what the process is told for it."""

import os

import jax
import pytest

from cptjax.hosts.alone import do_alone, is_together
from cptjax.hosts.finding import Found, find_processes
from cptjax.jobs.export import export
from cptjax.jobs.generate import generate
from cptjax.jobs.select_data import select_data
from cptjax.jobs.train import train


@pytest.fixture
def surroundings(monkeypatch):
    """The environment and JAX's platforms, which are as before afterwards."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    before = jax.config.jax_platforms
    yield os.environ
    jax.config.update("jax_platforms", before)


def test_the_first_does_it_on_its_cpu_and_so_does_what_it_starts(surroundings, capsys):
    surroundings.pop("JAX_PLATFORMS", None)
    assert do_alone("export", Found("a test", "a", 1234, 4, 0), tpu=True)
    assert surroundings["JAX_PLATFORMS"] == jax.config.jax_platforms == "cpu"
    assert find_processes(surroundings, tpu=True) is None
    assert "process 0 of 4 does the job 'export' alone, on its CPU" in capsys.readouterr().out


def test_what_was_chosen_stays_chosen_and_the_others_have_nothing_to_do(surroundings, capsys):
    surroundings["JAX_PLATFORMS"] = "tpu"
    assert do_alone("export", Found("a test", "a", 1234, 4, 0), tpu=True) and surroundings["JAX_PLATFORMS"] == "tpu"
    assert not do_alone("export", Found("a test", "a", 1234, 4, 3), tpu=True)
    assert "process 3 of 4 has nothing to do" in capsys.readouterr().out


def test_the_jobs_that_join_are_marked():
    assert [is_together(job) for job in (train, generate, select_data, export)] == [True, True, True, False]
