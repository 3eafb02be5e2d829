"""Many runs in one step are the runs that each would have been alone."""

import jax
import numpy as np
from test_step import LENGTH, ROWS, SMALL, assert_close_in_norm, mesh_of, on, random_batch

from cptjax.models.model import abstract_weights, initialize
from cptjax.models.numerics import Numerics
from cptjax.training.optimizer import AdamW
from cptjax.training.replicas import build_replicas_step, one_of, stacked, stacked_rows
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state
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


def test_runs_side_by_side_are_the_runs_alone():
    mesh = mesh_of({"fsdp": 1})
    updates = [update_of(peak) for _, peak, _ in RUNS]
    with jax.set_mesh(mesh):
        singles = [alone(*run, mesh) for run in RUNS]
        abstract = abstract_state(SMALL, updates[0], mesh)
        states = stacked([fresh_state(initialize(SMALL, seed, mesh), abstract, updates[0]) for seed, _, _ in RUNS])
        step = build_replicas_step(SMALL, Numerics(), updates[0], [update.learning_rate for update in updates])
        lines = []
        for number in range(STEPS):
            states, metrics = step(states, stacked_rows([rows_of(first, number) for _, _, first in RUNS]))
            lines.append(jax.device_get(metrics))
    assert step._cache_size() == 1, "a step after the first was compiled again"
    for run, (state, expected) in enumerate(singles):
        assert_close_in_norm(jax.device_get(one_of(states, run)["params"]), jax.device_get(state["params"]), 1e-4)
        for mine, theirs in zip(lines, expected, strict=True):
            assert set(mine) == set(theirs)
            for name in ("loss", "learning_rate", "gradient_norm", "tokens"):
                np.testing.assert_allclose(mine[name][run], theirs[name], rtol=1e-5, err_msg=name)
            assert (mine["batch_hash"][run] == theirs["batch_hash"]).all()
