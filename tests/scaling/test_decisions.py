"""What laws say to do: closed forms against searches, and the hand-worked cases."""

import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.scaling.allocation import frontier, general_tokens
from cptjax.scaling.choosing import choose
from cptjax.scaling.decisions import Domain, Values, continue_or_start, epochs_for, replay_for, split_tokens
from cptjax.scaling.fitting import problem
from cptjax.scaling.registry import LAWS

BASE = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
TWO_STAGES = Values(LAWS["effective_tokens"], {**BASE, "kappa": 40.0, "rho": 0.8})
SCRATCH = Values(LAWS["chinchilla"], BASE)


def test_a_base_that_brings_nothing_is_as_good_as_its_size_from_scratch():
    """With kappa near 0 the continued law is the law from scratch: at the best size neither wins, elsewhere scratch does."""
    nothing = Values(LAWS["effective_tokens"], {**BASE, "kappa": 1e-12, "rho": 0.5})
    compute = 1e20
    best = frontier(BASE).at(compute)
    found = continue_or_start(nothing, SCRATCH, best.params, compute, prior_tokens=1e10)
    assert found.continued == pytest.approx(found.afresh, rel=1e-9) == pytest.approx(found.afresh_any_size, rel=1e-9)
    assert found.best.params == pytest.approx(best.params, rel=1e-3)
    assert found.saved == pytest.approx(0.0, abs=1e-2)
    small = continue_or_start(nothing, SCRATCH, best.params / 30, compute, prior_tokens=1e10)
    assert small.afresh_any_size < small.continued and small.saved < 0 and small.break_even < compute


def test_a_base_that_brings_much_saves_compute_until_its_break_even():
    """5e9 tokens of worth against scratch: the break-even is where the losses meet."""
    found = continue_or_start(TWO_STAGES, SCRATCH, 1e9, 1e19, prior_tokens=1e11)
    assert found.continued < found.afresh_any_size < found.afresh and 0 < found.saved < 1
    at = found.break_even
    line = frontier(BASE).at(at)
    afresh = SCRATCH(params=line.params, tokens=line.tokens)
    assert TWO_STAGES(params=1e9, tokens=at / 6e9, prior_tokens=1e11) == pytest.approx(afresh, rel=1e-5)
    same = frontier(BASE).at(1e19 / (1 - found.saved))
    assert SCRATCH(params=same.params, tokens=same.tokens) == pytest.approx(found.continued, rel=1e-5)


@pytest.mark.parametrize("domains", [1, 4])
def test_equal_domains_are_split_as_the_closed_form_says(domains):
    total = 4e11
    found = split_tokens([Domain(TWO_STAGES)] * domains, 1e8, total)
    closed = general_tokens(TWO_STAGES.params, total, domains)
    assert found.general == pytest.approx(closed, rel=1e-4)
    least = TWO_STAGES(params=1e8, prior_tokens=closed, tokens=(total - closed) / domains)
    assert found.loss == pytest.approx(float(least), rel=1e-9)
    assert found.general + sum(found.domains) == pytest.approx(total) and np.ptp(found.domains) == 0
    if domains > 1:
        assert split_tokens([Domain(TWO_STAGES)] * domains, 1e8, total, shared=False).loss > found.loss


def test_a_small_domain_gets_what_it_has_and_a_heavy_one_more():
    found = split_tokens([Domain(TWO_STAGES, most=1e9), Domain(TWO_STAGES), Domain(TWO_STAGES, weight=3.0)], 1e8, 3e11)
    assert found.domains[0] == pytest.approx(1e9, rel=0.01) and found.domains[0] <= 1e9
    assert found.domains[2] > 2 * found.domains[1]
    tokens = np.array(found.domains[1:])  # another token is worth the same in both
    slope = [
        (
            TWO_STAGES(params=1e8, prior_tokens=found.general, tokens=t * 1.01)
            - TWO_STAGES(params=1e8, prior_tokens=found.general, tokens=t)
        )
        / t
        for t in tokens
    ]
    assert 3 * slope[1] == pytest.approx(slope[0], rel=0.05)


def test_epochs_are_worth_less_and_less_and_the_best_size_is_searched_for():
    law = Values(LAWS["data_constrained"], {**BASE, "R_D": 15.387756, "R_N": 5.309743})
    four = epochs_for(law, 1e9, 6 * 1e8 * 4e9, params=1e8)
    assert four.epochs == pytest.approx(4) and four.worth == pytest.approx(3.726e9, rel=1e-3)
    enough = epochs_for(law, 1e15, 1e20)
    assert enough.epochs == 1 and enough.params == pytest.approx(frontier(BASE).at(1e20).params, rel=0.02)
    little = epochs_for(law, 1e9, 1e20)
    sizes = np.geomspace(1e7, 1e11, 500)
    losses = law(params=sizes, tokens=1e20 / 6 / sizes, unique_tokens=np.minimum(1e9, 1e20 / 6 / sizes))
    assert little.params == pytest.approx(sizes[np.argmin(losses)], rel=0.02) and little.epochs > 4


def test_replay_keeps_the_limit_and_no_more():
    law = Values(LAWS["forgetting"], {"A": 0.8, "alpha": 0.4, "beta": 0.3, "B": 829.0})
    share = replay_for(law, 1e8, 1e9, limit=0.05)
    rise = 0.8 * (1e9 * (1 - share)) ** 0.3 / ((1 + 829 * share) * 1e8) ** 0.4
    assert 0 < share < 0.1 and rise == pytest.approx(0.05)
    assert replay_for(law, 1e12, 1e9, limit=10.0) == 0
    mixture = Values(LAWS["general_mixture"], {**BASE, "B": 10.0, "eta": 0.7, "C": 0.1, "epsilon": 0.02, "gamma": 0.5})
    share = replay_for(mixture, 1e9, 1e10, limit=0.05)
    losses = mixture(params=1e9, tokens=1e10, target_share=np.array([1 - share, 0.0]))
    assert 0 < share < 1 and losses[0] - losses[1] == pytest.approx(0.05)
    rising = Values(
        mixture.law, {**mixture.params, "A": 1.0, "B": 5e4, "eta": 3.0}
    )  # general text itself makes it worse
    assert replay_for(rising, 1e9, 1e10, limit=0.05) < 1
    with pytest.raises(ConfigurationError, match="says nothing about replay"):
        replay_for(SCRATCH, 1e8, 1e9, 0.1)
    with pytest.raises(ConfigurationError, match="knows nothing of epochs"):
        epochs_for(SCRATCH, 1e9, 1e20)
    frozen = replay_for(Values(law.law, {**law.params, "alpha": 0.0}), 1e8, 1e9, limit=0.05)  # a refit may end there
    assert frozen == pytest.approx(1 - (0.05 / 0.8) ** (1 / 0.3) / 1e9)


def test_a_break_even_is_not_where_both_are_next_to_nothing():
    """The joint law is infinite at no tokens: worse than scratch there, better at the budget, worse again beyond."""
    joint = Values(LAWS["joint_term"], {"E": 1.55, "A": 420.0, "alpha": 0.4, "B": 230.0, "beta": 0.2, "gamma": 0.08})
    scratch = Values(LAWS["chinchilla"], {"E": 1.55, "A": 420.0, "alpha": 0.4, "B": 719.5, "beta": 0.3})
    found = continue_or_start(joint, scratch, 5.5e9, 1.65e20)
    assert found.continued < found.afresh_any_size and found.break_even > 1.65e20
    same = frontier(scratch.params).at(found.break_even)
    assert joint(params=5.5e9, tokens=found.break_even / 33e9) == pytest.approx(
        scratch(params=same.params, tokens=same.tokens), rel=1e-5
    )
    for times in (0.9, 1.1):
        best = frontier(scratch.params).at(found.break_even * times)
        difference = scratch(params=best.params, tokens=best.tokens) - joint(
            params=5.5e9, tokens=found.break_even * times / 33e9
        )
        assert (difference > 0) == (times < 1)


@pytest.mark.slow
def test_the_law_the_runs_were_made_with_is_chosen_without_the_held_out_runs():
    generator = np.random.default_rng(0)
    size, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 3e9, 6), np.geomspace(1e8, 1e11, 5)))
    columns = {"params": size, "tokens": tokens, "prior_tokens": 20 * size}
    loss = LAWS["joint_term"].predict({**BASE, "B": 300.0, "beta": 0.25, "gamma": 0.06}, columns)
    loss = loss * np.exp(generator.normal(0, 5e-4, len(size)))
    laws = ("bethune_ft", "joint_term")
    problems = {name: problem(LAWS[name], columns, loss) for name in laws}
    choice = choose(problems, "params", 0.2, 32, 0, "runs.csv")
    assert choice.law.name == "joint_term"
    table = {row["law"]: row for row in choice.as_table()}
    assert table["joint_term"]["chosen"] and not table["bethune_ft"]["chosen"]
    assert table["joint_term"]["inner_error"] < table["bethune_ft"]["inner_error"]
    spoilt = loss.copy()
    spoilt[size > 2.9e9] *= 3  # the held-out runs have no part in choosing
    again = choose({name: problem(LAWS[name], columns, spoilt) for name in laws}, "params", 0.2, 32, 0, "runs.csv")
    assert [row["inner_error"] for row in again.as_table()] == [row["inner_error"] for row in choice.as_table()]
