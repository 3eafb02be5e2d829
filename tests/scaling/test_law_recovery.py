"""Every law finds again what its runs were made with, also past outliers, with weights, frozen values and bounds."""

import itertools

import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.scaling.fitting import fit, problem
from cptjax.scaling.registry import LAWS
from cptjax.scaling.solver import DELTA

BASE = {"E": 1.7, "A": 400.0, "alpha": 0.34}
TRUTH = {
    "chinchilla": {**BASE, "B": 1500.0, "beta": 0.36},
    "cross_lingual": {**BASE, "B": 500.0, "beta": 0.25, "gamma": 0.06},
    "effective_tokens": {**BASE, "B": 1500.0, "beta": 0.36, "kappa": 5.0, "rho": 0.8},
    "effective_tokens_N": {**BASE, "B": 1500.0, "beta": 0.36, "kappa": 0.1, "rho": 0.8, "delta": 0.2},
    "transfer_gap": {**BASE, "B": 2000.0, "beta": 0.3, "G": 20.0, "gamma": 0.2, "D0": 1e7},
    "bootstrapped": {**BASE, "B": 200.0, "beta1": 0.1, "beta2": 0.3, "beta3": 0.005},
    "joint_term": {**BASE, "B": 500.0, "beta": 0.25, "gamma": 0.06},
    "additive": {**BASE, "B": 1500.0, "beta": 0.36, "C": 50.0, "gamma": 0.25, "D0": 1e7},
    "bethune_ft": {"E": 1.7, "A": 4000.0, "alpha": 0.2, "beta": 0.2},
    "data_constrained": {**BASE, "B": 1500.0, "beta": 0.36, "R_D": 15.0, "R_N": 5.0},
    "domain_mixture": {**BASE, "B": 1500.0, "beta": 0.36, "eta": 0.7, "C": 0.1, "epsilon": 0.02, "gamma": 0.5},
    "general_mixture": {**BASE, "B": 1500.0, "beta": 0.36, "eta": 0.7, "C": 0.1, "epsilon": 0.02, "gamma": 0.5},
    "critical_mixture": {"a": -0.7, "s": -0.1, "b": 1.0},  # a share between 0 and 1 for all of these tokens
    "transfer": {**BASE, "B": 1500.0, "beta": 0.36, "k": 1e4, "a": 0.18, "b": 0.38},
    "forgetting": {"A": 0.5, "alpha": 0.4, "beta": 0.3, "B": 829.0},
    "annealing": {"L0": 2.6, "A": 0.6, "alpha": 0.45, "C": 0.4},
    "continued_annealing": {
        **{"L0": 3.0, "A": 0.5, "alpha": 0.5, "C1": 0.3, "C2": 0.3},
        **{"B": -0.666, "F": 500.0, "beta": 0.15},
    },
    "loss_to_accuracy": {"floor": 0.25, "rise": 0.6, "k": 3.0, "L0": 2.2},
}
LEVELS = {
    "params": np.geomspace(1e7, 3e9, 4),
    "tokens": np.geomspace(3e7, 3e11, 5),
    "prior_tokens": np.geomspace(1e8, 1e11, 4),
    "unique_tokens": np.geomspace(2e7, 2e10, 4),
    "target_share": np.array([0.05, 0.2, 0.4, 0.6, 0.8, 0.97]),
    "prior_loss": np.array([2.5]),
    "rate_sum": np.geomspace(0.05, 20, 6),
    "rate_fall": np.array([0.0, 0.05, 0.2]),
    "prior_rate_sum": np.geomspace(1, 30, 4),
    "prior_rate_fall": np.array([0.0, 0.1, 0.3]),
    "loss": np.linspace(1.0, 5.0, 12),
}


def grid(law):
    columns = np.array(list(itertools.product(*(LEVELS[name] for name in law.columns)))).T
    columns = dict(zip(law.columns, columns, strict=True))
    if "unique_tokens" in columns:
        columns["unique_tokens"] = np.minimum(columns["unique_tokens"], columns["tokens"])
    return columns


def made(name, **others):
    """A problem whose runs follow the law exactly; parameters that another fit gives are frozen at the truth."""
    law, truth = LAWS[name], TRUTH[name]
    columns = grid(law)
    frozen = {parameter: truth[parameter] for parameter in law.given}
    return problem(law, columns, law.predict(truth, columns), **{"frozen": frozen, **others})


@pytest.mark.parametrize("name", list(LAWS))
def test_a_law_recovers_its_own_parameters(name):
    fitted = fit(made(name), starts=64)
    assert fitted.objective < 1e-16
    assert fitted.values == pytest.approx(TRUTH[name], rel=1e-4)
    assert not fitted.at_bounds


def test_gamma_is_nothing_where_nothing_is_transferred():
    """arXiv 2407.02118, 2.3: the extended law on from-scratch runs leaves gamma near 0 (theirs: -0.005)."""
    columns, law = grid(LAWS["chinchilla"]), LAWS["chinchilla"]
    noise = np.exp(np.random.default_rng(0).normal(0, 2e-3, len(columns["params"])))
    loss = law.predict(TRUTH["chinchilla"], columns) * noise
    scratch = fit(problem(law, columns, loss), starts=64).values
    frozen = {name: scratch[name] for name in ("E", "A", "alpha")}
    extended = fit(problem(LAWS["cross_lingual"], columns, loss, frozen), starts=64)
    assert abs(extended.values["gamma"]) < 0.01
    assert {name: extended.values[name] for name in frozen} == frozen


def test_an_outlier_pulls_no_harder_than_the_threshold_and_a_run_of_weight_nothing_is_not_there():
    one = made("chinchilla")
    exact = one.loss.copy()
    one.loss[7] *= 1.5
    moved = np.log(fit(one, starts=64).predict(one.columns) / exact)
    assert np.abs(moved).max() < DELTA  # 0.4 on the outlier itself
    one.loss[11:20] *= 0.7
    weights = np.ones(len(one.loss))
    weights[[7, *range(11, 20)]] = 0
    weighted = problem(one.law, one.columns, one.loss, weights=weights)
    assert fit(weighted, starts=64).objective < 1e-16


def test_bounds_hold_and_are_told_of():
    fitted = fit(made("chinchilla", bounds={"alpha": (0.4, 1.0), "A": (1.0, 1e6)}), starts=64)
    assert fitted.values["alpha"] == pytest.approx(0.4, abs=1e-6)
    assert fitted.at_bounds == ["alpha"]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"frozen": {"a": 1.0}}, "FROZEN names a; the law 'chinchilla' has E, A, B, alpha, beta"),
        ({"frozen": {"A": -1.0}}, "it is a positive number"),
        ({"bounds": {"A": (2.0, 1.0)}}, "the lower one comes first"),
    ],
)
def test_what_is_given_of_a_law_is_checked(given, message):
    with pytest.raises(ConfigurationError, match=message):
        made("chinchilla", **given)


def test_the_cross_lingual_law_is_told_what_it_does_not_fit():
    with pytest.raises(ConfigurationError, match=r"takes E, A, alpha from another fit .* alpha is not given"):
        made("cross_lingual", frozen={"E": 1.7, "A": 400.0})
