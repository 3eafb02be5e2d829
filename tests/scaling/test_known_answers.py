"""Numbers that others published, and what follows from them."""

import csv

import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.scaling.allocation import allocated, best_size, frontier, general_tokens
from cptjax.scaling.annealing import rate_sums
from cptjax.scaling.data_constrained import worth
from cptjax.scaling.fitting import fit, problem
from cptjax.scaling.registry import LAWS
from cptjax.scaling.shares import share_at_limit
from cptjax.scaling.solver import float64_on_cpu
from cptjax.scaling.transfer import log_transferred

SCRATCH = {"E": 1.55, "A": 420.0, "B": 719.5, "alpha": 0.40, "beta": 0.30}  # arXiv 2407.02118, table 2
CONTINUED = {"E": 1.55, "A": 420.0, "B": 433.3, "alpha": 0.40, "beta": 0.20, "gamma": 0.08}


def test_chinchilla_on_the_points_of_its_figure_4(shared_data):
    """The optimum of arXiv 2404.10102's objective on its own digitised points, the five largest losses dropped."""
    with (shared_data / "scaling" / "chinchilla_fig4.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    size, flops, loss = (
        np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP", "loss")
    )
    kept = np.argsort(loss)[:-5]
    columns = {"params": size[kept], "tokens": flops[kept] / (6 * size[kept])}
    fitted = fit(problem(LAWS["chinchilla"], columns, loss[kept]), starts=128)
    assert fitted.objective <= 0.001018275
    assert fitted.values["alpha"] == pytest.approx(0.34731, abs=1e-5)
    assert fitted.values["beta"] == pytest.approx(0.36717, abs=1e-5)
    assert fitted.values["A"] == pytest.approx(477.83, rel=1e-4)
    assert fitted.values["B"] == pytest.approx(2143.4, rel=1e-4)
    assert fitted.values["E"] == pytest.approx(1.81722, abs=1e-5)


@pytest.mark.parametrize(
    "values, G, exponents, prefactors",
    [
        (SCRATCH, 0.699053, (3 / 7, 4 / 7), (0.324352, 0.513845)),
        (CONTINUED, 9.538910, (5 / 13, 8 / 13), (4.788614, 0.034805)),
    ],
)
def test_the_compute_optimal_line_of_cross_lingual_training(values, G, exponents, prefactors):
    """arXiv 2407.02118, section 3: N = 0.324 C**0.429, D = 0.514 C**0.571; N = 4.79 C**0.385, D = 0.035 C**0.615."""
    line = frontier(values)
    assert line.G == pytest.approx(G, rel=1e-6)
    assert (line.size_exponent, line.token_exponent) == pytest.approx(exponents, abs=1e-12)
    assert line.prefactors == pytest.approx(prefactors, rel=2e-5)


@pytest.mark.parametrize("name, values", [("chinchilla", SCRATCH), ("cross_lingual", CONTINUED)])
@pytest.mark.parametrize("compute", [1e18, 1e22])
def test_the_search_finds_what_the_closed_form_says(name, values, compute):
    found, closed = best_size(LAWS[name], values, compute), frontier(values).at(compute)
    assert found.params == pytest.approx(closed.params, rel=1e-4)
    assert 6 * found.params * found.tokens == pytest.approx(compute)


def test_no_best_size_where_data_help_larger_models_less_than_size_does():
    with pytest.raises(ConfigurationError, match="beta above gamma"):
        frontier({**CONTINUED, "gamma": 0.2})


def test_the_printed_coefficients_contradict_their_papers_claim():
    """PAPERS 2.5: at 20 tokens per parameter, continued training comes out worse than from scratch with rounded numbers."""
    runs = {"params": np.array([1.4e9, 5.5e9]), "tokens": np.array([28e9, 110e9])}
    assert LAWS["chinchilla"].predict(SCRATCH, runs) == pytest.approx([2.170, 1.954], abs=6e-4)
    assert LAWS["cross_lingual"].predict(CONTINUED, runs) == pytest.approx([2.296, 2.049], abs=6e-4)


@pytest.mark.parametrize("domains, totals", [(1, (1e10, 4e10)), (5, (4e11, 1e12))])
def test_general_tokens_of_a_split_are_constant_and_optimal(domains, totals):
    """`effective_tokens`, one trunk of D and K branches of D' each, D + K D' paid for: searched against the closed form."""
    values = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36, "kappa": 40.0, "rho": 0.8}
    for total in totals:
        general = np.geomspace(1e3, total * 0.999, 200_001)
        runs = {"params": 1e8, "prior_tokens": general, "tokens": (total - general) / domains}
        searched = general[np.argmin(LAWS["effective_tokens"].predict(values, runs))]
        assert general_tokens(values, total, domains) == pytest.approx(searched, rel=1e-3)
    assert allocated(LAWS["effective_tokens"], values)["general_tokens"] == pytest.approx(32.0**5)
    assert general_tokens(values, 1e6) == 1e6  # the budget does not hold it


def test_what_epochs_are_worth():
    """arXiv 2305.16264 with its R*_D = 15.387756; four epochs are almost as good as new text."""
    with float64_on_cpu():
        epochs = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 40.0])
        assert np.asarray(worth(epochs, 1.0, np.log(15.387756))) == pytest.approx(
            [1, 1.968, 3.726, 6.624, 10.582, 15.167], abs=1e-3
        )


def test_repeated_text_with_the_papers_coefficients():
    """U_N is 0.051 of U_D there (alpha = beta = 0.3526596), and new text follows the law without repetition."""
    values = {
        "E": 1.869,
        "A": 520.8,
        "B": 1487.7,
        "alpha": 0.3526596,
        "beta": 0.3526596,
        "R_D": 15.387756,
        "R_N": 5.309743,
    }
    law, size = LAWS["data_constrained"], 0.05 * 1e9
    new = law.predict(values, {"params": size, "tokens": 1e9, "unique_tokens": 1e9})
    assert new == pytest.approx(LAWS["chinchilla"].predict(values, {"params": size, "tokens": 1e9}), rel=1e-12)
    sizes = np.array([0.0509e9, 0.0511e9])  # between them lies U_N: beyond, a size is worth less
    found = law.predict(values, {"params": sizes, "tokens": 1e9, "unique_tokens": 1e9})
    whole = LAWS["chinchilla"].predict(values, {"params": sizes, "tokens": 1e9})
    assert found[0] == pytest.approx(whole[0], rel=1e-12) and found[1] > whole[1] * (1 + 1e-9)


def test_the_critical_mixture_ratio_after_20_billion_tokens():
    """arXiv 2407.17467: 29.8, 34.9, 41.4 and 47.8% of domain tokens for 460M to 3.1B."""
    fitted = [
        {"a": 0.22524761, "s": 0.26944345, "b": -0.48139982},
        {"a": 0.7520627, "s": 0.13720245, "b": -1.06581937},
        {"a": -2.36384831, "s": -0.15125569, "b": 1.59223649},
        {"a": -2.5368197, "s": -0.42071423, "b": 0.84375368},
    ]
    found = [float(LAWS["critical_mixture"].predict(values, {"tokens": 20e9})) for values in fitted]
    assert found == pytest.approx([0.2976, 0.3489, 0.4143, 0.4783], abs=1e-4)
    early = float(LAWS["critical_mixture"].predict(fitted[0], {"tokens": 0.2e9}))
    assert early == pytest.approx(0.22524761 - 0.48139982)  # no share at all, and not a small one


def test_the_largest_domain_share_within_three_percent_of_the_general_loss():
    """D-CPT on chemistry (arXiv 2406.01375): 0.924 predicted and measured, of its own table."""
    shares = np.array([0.90, 0.91, 0.92, 0.924, 0.93, 0.94, 1.0])
    losses = np.array([2.9052, 2.9193, 2.9376, 2.9445, 2.9644, 2.9848, 3.4667])
    assert share_at_limit(shares[::-1], losses[::-1], 2.8602 * 1.03) == pytest.approx(0.924, abs=1e-3)
    with pytest.raises(ConfigurationError, match="exceeded already at a share of 0.9"):
        share_at_limit(shares, losses, 2.9)
    with pytest.raises(ConfigurationError, match="still kept at a share of 1"):
        share_at_limit(shares, losses, 3.5)


def test_ten_times_the_size_transfers_more_than_ten_times_the_tokens():
    """arXiv 2102.01293, text to Python: times 2.40 against times 1.51."""
    p = {"log_k": np.log(1.9e4), "a": 0.18, "b": 0.38}

    def tokens(size, read):
        with float64_on_cpu():
            return np.exp(float(log_transferred(p, np.log(size), np.log(read))))

    assert tokens(1e9, 1e7) / tokens(1e8, 1e7) == pytest.approx(2.40, abs=5e-3)
    assert tokens(1e8, 1e8) / tokens(1e8, 1e7) == pytest.approx(1.51, abs=5e-3)


def test_the_fall_of_the_learning_rate_is_the_papers_double_sum():
    """arXiv 2408.11029: S2 = sum over i <= s, k <= i of (rate_(k-1) - rate_k) * decay**(i - k)."""
    rates = np.concatenate([np.linspace(1e-5, 2e-4, 20), 2e-4 * np.cos(np.linspace(0, 1.4, 60))])
    falls = np.concatenate([[0.0], rates[:-1] - rates[1:]])
    double = [sum(falls[k] * 0.99 ** (i - k) for i in range(s + 1) for k in range(i + 1)) for s in range(len(rates))]
    area, fall = rate_sums(rates, decay=0.99)
    assert fall == pytest.approx(double, abs=1e-15) and area == pytest.approx(np.cumsum(rates))
    assert np.all(rate_sums(np.full(5, 1e-3))[1] == 0)


def test_a_loss_along_its_schedule_with_the_papers_coefficients():
    """arXiv 2505.07796, 106M on Knowledge-Pile: the old text's loss rises from where it was, the new one's falls."""
    shared = {"alpha": 0.497, "C1": 0.299, "C2": 0.298}
    old = {"L0": 3.057, "A": 0.490, **shared, "B": 0.366, "F": 28.0, "beta": 0.189}
    new = {"L0": 3.024, "A": 0.412, "alpha": 0.677, "C1": 0.278, "C2": 0.324, "B": -0.666, "F": 5662.0, "beta": 0.146}
    runs = {"prior_rate_sum": 4.0, "prior_rate_fall": 0.2, "rate_sum": np.array([0.0, 0.1, 1.0]), "rate_fall": 0.0}
    law = LAWS["continued_annealing"]
    assert law.predict(old, runs)[0] == pytest.approx(3.057 + 0.490 * 4**-0.497 - 0.299 * 0.2)
    assert (np.diff(law.predict(old, runs)) > 0).all() and (np.diff(law.predict(new, runs)) < 0).all()
