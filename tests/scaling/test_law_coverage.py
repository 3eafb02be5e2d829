"""Intervals of every law cover what its runs were made with about as often as they say, with trunks that share their luck."""

import numpy as np
import pytest
from test_law_recovery import LEVELS, TRUTH, grid

from cptjax.scaling.bootstrap import bootstrap, clusters, drawn_weights, intervals
from cptjax.scaling.fitting import Fit, problem
from cptjax.scaling.registry import LAWS

pytestmark = pytest.mark.slow
SIMULATIONS, REFITS = 3, 192
OF_TRUNKS, OF_RUNS = 2e-3, 1e-3  # standard deviations of the log-loss


def trunks_of(columns):
    """The trunk of each run: runs that agree in the law's first column and one more, as branches of one base do."""
    first, *others = (columns[name] for name in columns)
    second = others[0] if others else first
    return np.unique(np.stack([first, second]), axis=1, return_inverse=True)[1].reshape(-1)


def test_intervals_cover_their_parameters():
    assert set(TRUTH) == set(LAWS) and all(name in LEVELS for law in LAWS.values() for name in law.columns)
    covered, asked = {}, {}
    generator = np.random.default_rng(0)
    for name, law in LAWS.items():
        columns, truth = grid(law), TRUTH[name]
        frozen = {parameter: truth[parameter] for parameter in law.given}
        exact, trunk = law.predict(truth, columns), trunks_of(columns)
        for simulation in range(SIMULATIONS):
            luck = generator.normal(0, OF_TRUNKS, trunk.max() + 1)[trunk]
            loss = exact * np.exp(luck + generator.normal(0, OF_RUNS, len(trunk)))
            one = problem(law, columns, loss, frozen)
            found, objective = one.solve(law.fitted_from(truth)[None], 200)
            fitted = Fit(one, found[0], float(objective[0]), 1, 1, 1)
            drawn, seeds, _ = clusters({"trunk": trunk.astype(str)}, len(trunk))
            ranges = intervals(fitted, bootstrap(fitted, drawn_weights(drawn, seeds, REFITS, simulation)))
            for parameter, (low, high) in ranges.items():
                asked[name] = asked.get(name, 0) + 1
                covered[name] = covered.get(name, 0) + (low <= truth[parameter] <= high)
    rates = {name: covered[name] / asked[name] for name in LAWS}
    # 95% promised. Parameters of a law move together, so a law has hardly more than SIMULATIONS independent trials.
    assert sum(covered.values()) / sum(asked.values()) > 0.85, rates
    assert min(rates.values()) >= 0.5, rates
