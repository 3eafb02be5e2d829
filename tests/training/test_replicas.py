"""Many runs in one step are the runs that each would have been alone."""

import jax
import numpy as np
import pytest
from test_step import LENGTH, ROWS, SMALL, assert_close_in_norm, mesh_of, on, random_batch

from cptjax.models.model import abstract_weights, initialize
from cptjax.models.numerics import Numerics
from cptjax.training import replicas
from cptjax.training.optimizer import AdamW
from cptjax.training.replicas import (
    build_replicas_step,
    build_single_step,
    mesh_of_runs,
    one_of,
    stacked,
    stacked_rows,
)
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state, state_shardings
from cptjax.training.step import build_train_step
from cptjax.training.update import Update

STEPS = 4
RUNS = [(0, 1e-3, 0), (1, 4e-3, 100)]  # seed of the weights, peak, first seed of the rows


def update_of(peak, steps=STEPS):
    rate = compile_schedule(Schedule(peak, "peak", (Phase("cosine", to="peak/10"),)), steps, ROWS * LENGTH)
    return Update(AdamW().transformation(abstract_weights(SMALL)), rate)


def rows_of(first, step):
    return random_batch(first + step, SMALL.vocabulary)


def alone(seed, peak, first, mesh):
    update = update_of(peak)
    abstract = abstract_state(SMALL, update, mesh)
    state = fresh_state(initialize(SMALL, seed, mesh), abstract, update)
    step = build_train_step(SMALL, Numerics(), update, mesh, abstract)
    lines = []
    for number in range(STEPS):
        state, metrics = step(state, on(mesh, rows_of(first, number)))
        lines.append(metrics)
    return state, jax.device_get(lines)


@pytest.fixture(scope="module")
def singles():
    """Of each of RUNS alone, its last state and the metrics of its steps."""
    mesh = mesh_of({"fsdp": 1})
    with jax.set_mesh(mesh):
        return [alone(*run, mesh) for run in RUNS]


@pytest.mark.parametrize("devices, in_turn", [(1, True), (2, True), (2, False)])
def test_runs_side_by_side_are_the_runs_alone(singles, devices, in_turn, monkeypatch):
    """On one device and shared out among two; one after another within the step, as on a CPU, and by vmap."""
    runs = RUNS * devices
    monkeypatch.setattr(replicas, "one_by_one", lambda *of: in_turn)
    mesh, shared = mesh_of({"fsdp": 1}), mesh_of_runs(jax.devices()[:devices])
    update = update_of(1.0)  # not this rate
    with jax.set_mesh(mesh):
        abstract = abstract_state(SMALL, update, mesh)
        states = stacked(
            [jax.device_get(fresh_state(initialize(SMALL, seed, mesh), abstract, update)) for seed, _, _ in runs],
            shared,
        )
    step = build_replicas_step(SMALL, Numerics(), update, shared)
    rates = np.stack([update_of(peak).learning_rate.at(np.arange(STEPS)) for _, peak, _ in runs], axis=1)
    lines = []
    for number in range(STEPS):
        with jax.set_mesh(shared):
            rows = stacked_rows([rows_of(first, number) for _, _, first in runs])
            states, metrics = step(states, rows, rates[number].astype(np.float32))
        lines.append(jax.device_get(metrics))
    assert step._cache_size() == 1, "a step after the first was compiled again"
    for run in range(len(runs)):
        state, expected = singles[run % len(RUNS)]
        mine = one_of(states, run, state_shardings(abstract))
        assert mine["step"].sharding == state["step"].sharding
        assert_close_in_norm(jax.device_get(mine["params"]), jax.device_get(state["params"]), 1e-4)
        for mine, theirs in zip(lines, expected, strict=True):
            assert set(mine) == set(theirs)
            for name in ("loss", "learning_rate", "gradient_norm", "tokens"):
                np.testing.assert_allclose(mine[name][run], theirs[name], rtol=1e-5, err_msg=name)
            assert (mine["batch_hash"][run] == theirs["batch_hash"]).all()


def test_a_step_that_is_told_its_rates_serves_runs_of_any_schedule(singles):
    mesh = mesh_of({"fsdp": 1})
    with jax.set_mesh(mesh):
        state, expected = singles[1]
        update = update_of(1.0)  # not this rate
        abstract = abstract_state(SMALL, update, mesh)
        step = build_single_step(SMALL, Numerics(), update, state_shardings(abstract))
        mine = fresh_state(initialize(SMALL, RUNS[1][0], mesh), abstract, update)
        rates = update_of(RUNS[1][1]).learning_rate.at(np.arange(STEPS)).astype(np.float32)
        for number in range(STEPS):
            mine, metrics = step(mine, on(mesh, rows_of(RUNS[1][2], number)), rates[number])
            for name in ("loss", "learning_rate", "gradient_norm"):
                np.testing.assert_allclose(metrics[name], expected[number][name], rtol=1e-5, err_msg=name)
    assert step._cache_size() == 1
    assert_close_in_norm(jax.device_get(mine["params"]), jax.device_get(state["params"]), 1e-4)
