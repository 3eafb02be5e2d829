"""Intervals cover as often as they say when trunks share their luck; what runs cannot tell is said; the error on the largest."""

import numpy as np
import pytest

from cptjax.scaling.bootstrap import bootstrap, clusters, drawn_weights, intervals
from cptjax.scaling.fitting import Fit, problem
from cptjax.scaling.held_out import held_out_error, largest, naive, seed_deviation
from cptjax.scaling.profile import profiles
from cptjax.scaling.registry import LAWS

LAW = LAWS["chinchilla"]
TRUTH = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}
TRUNKS, BRANCHES = 24, 3


def trunk_runs():
    """Columns of 24 trunks with 3 branches each, and the trunk of each run."""
    size = np.repeat(np.tile(np.geomspace(1e7, 3e9, 6), TRUNKS // 6), BRANCHES)
    tokens = np.tile(np.geomspace(1e8, 1e11, BRANCHES), TRUNKS)
    return {"params": size, "tokens": tokens}, np.repeat(np.arange(TRUNKS), BRANCHES)


def fitted_to(columns, loss):
    """The fit from the truth: the same optimum as from many starts, for runs this close to the law."""
    one = problem(LAW, columns, loss)
    found, objective = one.solve(LAW.fitted_from(TRUTH)[None], 200)
    return Fit(one, found[0], float(objective[0]), 1, 1, 1)


def test_runs_of_a_trunk_are_drawn_together_and_its_seeds_apart():
    names = {"trunk": np.array(["a", "a", "a", "a", "b", "b", "", ""]), "seed": np.array(list("00112200"))}
    trunks, seeds, varies = clusters(names, 8)
    weights = drawn_weights(trunks, seeds, 200, seed=0)
    assert varies == "trunks and their seeds"
    for together in ([0, 1], [2, 3], [4, 5]):
        assert (weights[:, together[0]] == weights[:, together[1]]).all()
    assert (weights[:, 0] != weights[:, 2]).any() and (weights[:, 6] != weights[:, 7]).any()
    drawn = (weights[:, 0] + weights[:, 2]) / 2 + weights[:, 4] + weights[:, 6] + weights[:, 7]
    assert (drawn == 4).all()  # as many trunks as there are; each drawn one with as many seeds as it has


def test_intervals_cover_when_trunks_vary_and_do_not_when_runs_are_taken_for_independent():
    columns, trunk = trunk_runs()
    exact, generator, covered = LAW.predict(TRUTH, columns), np.random.default_rng(0), {"trunks": 0, "runs": 0}
    simulations = 10
    for n in range(simulations):
        luck = generator.normal(0, 0.02, TRUNKS)[trunk] + generator.normal(0, 0.004, len(trunk))
        fit = fitted_to(columns, exact * np.exp(luck))
        for what, names in (("trunks", {"trunk": trunk.astype(str)}), ("runs", {})):
            first, seeds, varies = clusters(names, len(trunk))
            refits = bootstrap(fit, drawn_weights(first, seeds, 64, seed=n))
            low, high = intervals(fit, refits)["alpha"]
            covered[what] += low <= TRUTH["alpha"] <= high
    assert covered["trunks"] >= 0.8 * simulations  # 95% promised; 24 trunks and 64 refits are few
    assert covered["runs"] < covered["trunks"] - 0.1 * simulations


def test_the_profile_agrees_with_the_spread_of_many_fits_and_says_what_is_not_identified():
    columns, trunk = trunk_runs()
    generator = np.random.default_rng(1)
    exact = LAW.predict(TRUTH, columns)
    fits = [fitted_to(columns, exact * np.exp(generator.normal(0, 0.005, len(trunk)))) for _ in range(20)]
    spread = np.std([fit.values["alpha"] for fit in fits])
    found = profiles(fits[0])
    assert all(profile.identified for profile in found.values())
    width = (found["alpha"].high - found["alpha"].low) / 2
    assert 1.2 * spread < width < 3.2 * spread  # 1.96 of them
    assert found["alpha"].low < fits[0].values["alpha"] < found["alpha"].high

    one_size = {"params": np.full(len(trunk), 1e8), "tokens": columns["tokens"]}
    noisy = LAW.predict(TRUTH, one_size) * np.exp(generator.normal(0, 0.005, len(trunk)))
    found = profiles(fitted_to(one_size, noisy))
    assert not found["alpha"].identified and not found["A"].identified
    assert found["beta"].identified


def test_the_largest_runs_are_predicted_without_having_been_seen():
    columns, trunk = trunk_runs()
    one = problem(LAW, columns, LAW.predict(TRUTH, columns))
    held = largest(columns["params"], 0.2)
    assert (columns["params"][held] == columns["params"].max()).all() and held.sum() == len(held) / 6
    error = held_out_error(one, "params", held, starts=64, seed=0)
    assert error.relative_error < 1e-4 and error.reducible_error < 1e-3 and error.skill > 0.99
    assert error.runs == error.skill_runs == held.sum()
    lines = naive(one, "params", held)
    assert (lines < one.loss[held]).all()  # a straight line does not know of E


def test_a_straight_line_is_known_along_tokens_per_parameter_too():
    size = np.geomspace(1e7, 1e9, 4)
    one = problem(LAW, {"params": size, "tokens": 20 * size}, np.exp(2 - 0.1 * np.log(size / 1e7)))
    assert naive(one, "params", size > 9e8) == pytest.approx(one.loss[-1:])


def test_the_seeds_deviation_is_that_of_replicates():
    columns = {"params": np.array([1e7, 1e7, 1e8, 1e8, 1e9]), "tokens": np.full(5, 1e9)}
    assert seed_deviation(problem(LAW, columns, np.array([3.0, 3.2, 2.0, 2.2, 1.9]))) == pytest.approx(np.sqrt(0.02))
    assert seed_deviation(problem(LAW, {**columns, "params": np.geomspace(1e7, 1e9, 5)}, np.ones(5))) is None
