import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.training.learning_rate import SHAPES
from cptjax.training.schedule import Phase, Schedule, compile_schedule, switch_step

STEPS, BATCH_TOKENS = 100_000, 4096


def reuse(final: float, peak: float = 4.5e-5, steps: int = STEPS):
    phases = (Phase("cosine", to=peak * final),)
    return compile_schedule(Schedule(peak, "peak", phases), steps, BATCH_TOKENS)


@pytest.mark.parametrize(
    "final, fraction, progress",
    [(0.01, 1 / 2, 0.5032), (0.01, 1 / 5, 0.7113), (0.01, 1 / 10, 0.8050), (0.01, 1 / 50, 0.9359)]
    + [(0.1, 1 / 2, 0.5354), (0.1, 1 / 5, 0.7837), (0.0, 1 / 2, 0.5), (0.0, 1 / 5, 0.7048), (0.0, 1 / 10, 0.7952)],
)
def test_the_switch_lands_where_the_reuse_recipe_says(final, fraction, progress):
    # arXiv 2407.07263: t solves m + (1 - m)/2 (1 + cos(pi t)) = f; values to four places
    assert switch_step(reuse(final), fraction, STEPS) / STEPS == pytest.approx(progress, abs=6e-5)


def test_learning_rate_reaches_a_fifth_of_its_peak_at_the_exact_solution():
    # 0.01 + 0.99/2 (1 + cos(pi t)) = 0.2, solved: t = 0.7113132
    exact = np.arccos(2 * (0.2 - 0.01) / 0.99 - 1) / np.pi
    assert exact == pytest.approx(0.7113, abs=5e-5)  # as printed for arXiv 2407.07263
    assert switch_step(reuse(0.01, steps=1_000_000), 0.2, 1_000_000) / 1e6 == pytest.approx(exact, abs=1e-6)


def test_a_switch_that_never_comes_is_refused():
    with pytest.raises(ConfigurationError, match="never|only falls"):
        switch_step(reuse(0.1), 1 / 20, STEPS)


def test_warmup_then_cosine_at_every_border():
    phases = (Phase("linear", to="peak", length="1%"), Phase("cosine", to="peak/10"))
    rate = compile_schedule(Schedule(3e-4, 0.0, phases), 1000, BATCH_TOKENS)
    assert rate.at([0, 5, 10]).tolist() == pytest.approx([0.0, 1.5e-4, 3e-4])
    assert float(rate.at(505)) == pytest.approx((3e-4 + 3e-5) / 2)  # half-way of the cosine
    assert float(rate.at(1000)) == pytest.approx(3e-5)
    assert rate.final == pytest.approx(3e-5)


def test_past_the_end_the_last_value_holds():
    assert float(reuse(0.01).at(STEPS * 10)) == pytest.approx(4.5e-7)


@pytest.mark.parametrize(
    "shape, formula",
    [
        ("1-sqrt", lambda x: 1e-3 + (1e-4 - 1e-3) * np.sqrt(x)),
        ("inverse-sqrt", lambda x: 1e-3 + (1e-4 - 1e-3) / (11**-0.5 - 1) * ((1 + 10 * x) ** -0.5 - 1)),
        ("exponential", lambda x: 1e-3 * np.exp(-np.log(1e-3 / 1e-4) * x)),
    ],
)
def test_cooldowns_follow_their_papers(shape, formula):
    """arXiv 2405.18392 (1-sqrt); 2403.08763 (inverse square root with timescale 10, exponential anneal)."""
    phases = (Phase("hold", length="80%"), Phase(shape, to="peak/10"))
    rate = compile_schedule(Schedule(1e-3, "peak", phases), 1000, BATCH_TOKENS)
    steps = np.arange(800, 1001)
    expected = formula((steps - 800) / 200)
    assert np.allclose(rate.at(steps), expected, rtol=1e-12)
    assert np.allclose(jax.jit(rate)(jnp.asarray(steps)), expected, rtol=1e-5)  # float32
    assert np.all(rate.at(np.arange(801)) == 1e-3) and rate.at(5000) == pytest.approx(1e-4)


def test_hold_keeps_what_it_finds_and_lengths_may_be_tokens_steps_or_shares():
    phases = (
        Phase("linear", to="peak", length="20 steps"),
        Phase("hold", length=f"{30 * BATCH_TOKENS} tokens"),
        Phase("linear", to=0.0, length="50%"),
    )
    rate = compile_schedule(Schedule(1e-3, 0.0, phases), 100, BATCH_TOKENS)
    assert rate.at([20, 35, 50, 75, 100]).tolist() == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 0.0])


@given(st.floats(1e-6, 1e-2), st.floats(0, 1), st.integers(2, 5000), st.integers(0, 6000))
def test_the_device_and_the_host_agree(peak, final, steps, step):
    phases = (Phase("linear", to="peak", length="10%"), Phase("cosine", to=peak * final))
    rate = compile_schedule(Schedule(peak, "peak/10", phases), steps, BATCH_TOKENS)
    on_device = float(jax.jit(rate)(jnp.int32(step)))
    # float32 of the progress: 6e-8 of the step's share of the phase, times the slope (at most pi/2 peaks a phase)
    assert on_device == pytest.approx(float(rate.at(step)), rel=1e-5, abs=peak * 2e-6)


@pytest.mark.parametrize(
    "schedule, message",
    [
        (Schedule("inherit", "peak", (Phase("cosine", to="peak/100"),)), "BASE_FINAL_LR"),
        (Schedule(-1.0, "peak", (Phase("hold"),)), "PEAK_LEARNING_RATE"),
        (Schedule(1e-3, "peak", (Phase("exponential", to=0.0),)), "both are above 0"),
        (Schedule(1e-3, "peak", (Phase("cosin", to=0.0),)), "cosin"),
        (Schedule(1e-3, "top", (Phase("hold"),)), "top"),
        (Schedule(1e-3, "peak/0", (Phase("hold"),)), "peak/0"),
        (Schedule(1e-3, "peak", (Phase("hold", length="60%"), Phase("linear", to=0.0, length="50%"))), "longer than"),
        (Schedule(1e-3, "peak", (Phase("hold", to="peak/2"),)), "holds the value it finds"),
        (Schedule(1e-3, "peak", (Phase("linear"),)), "the end of the linear phase"),
        (Schedule(1e-3, "peak", (Phase("power", to="peak/2"),)), "cannot begin at step 0"),
        (Schedule(1e-3, "peak", (Phase("warm-up", to="peak/2"),)), "goes down"),
        (Schedule(1e-3, "inherit", (Phase("hold"),)), "BASE_FINAL_LR"),
        (Schedule(1e-3, 0.0, (Phase("linear", to="inherit/10"),)), "BASE_FINAL_LR"),
        (Schedule("peak", 0.0, (Phase("hold"),)), "PEAK_LEARNING_RATE"),
        (Schedule(1e-3, 0.0, (Phase("hold"),), rebuild_moments="100%"), "all of the run"),
        (Schedule(1e-3, 0.0, (Phase("hold", length="60 steps"),), rebuild_moments="50 steps"), "10.0 steps longer"),
        (Schedule(1e-3, "peak", (Phase("hold"), Phase("hold"))), "only one"),
        (Schedule(1e-3, "peak", (Phase("hold", length="ten"),)), "ten"),
        (Schedule(1e-3, "peak", ()), "no phases"),
    ],
)
def test_what_cannot_be_meant_is_refused(schedule, message):
    with pytest.raises(ConfigurationError, match=message):
        compile_schedule(schedule, 100, BATCH_TOKENS)


def test_values_are_inherited_from_the_lineage():
    schedule = Schedule("inherit", "peak", (Phase("cosine", to="peak/100"),))
    rate = compile_schedule(schedule, 100, BATCH_TOKENS, inherited=4.5e-5)
    assert np.allclose(rate.at([0, 100]), [4.5e-5, 4.5e-7])
    phases = (Phase("warm-up", length="10%"), Phase("linear", to="inherit / 2"))
    rate = compile_schedule(Schedule("inherit*10", "inherit", phases), 100, BATCH_TOKENS, inherited=2e-5)
    assert np.allclose(rate.at([0, 10, 100]), [2e-5, 2e-4, 1e-5])


def test_phases_that_end_before_the_run_leave_their_last_value_and_say_so():
    phases = (Phase("warm-up", length="10 steps"), Phase("linear", to="peak/4", length="40 steps"))
    rate = compile_schedule(Schedule(1e-3, 0.0, phases), 100, BATCH_TOKENS)
    assert rate.at([10, 50, 51, 99, 100]).tolist() == pytest.approx([1e-3, *[2.5e-4] * 4])
    assert rate.describe(100).endswith("its phases end there: 0.00025 holds for the 50 steps left")
    assert "holds" not in rate.describe(50)


def test_moments_are_rebuilt_at_zero_before_the_schedule_begins():
    phases = (Phase("cosine", to="peak/10"),)
    plain = compile_schedule(Schedule(1e-3, "peak", phases), 80, BATCH_TOKENS)
    rate = compile_schedule(Schedule(1e-3, "peak", phases, rebuild_moments="20 steps"), 100, BATCH_TOKENS)
    assert np.all(rate.at(np.arange(20)) == 0) and np.all(np.asarray(jax.vmap(rate)(jnp.arange(20))) == 0)
    assert np.allclose(rate.at(np.arange(20, 101)), plain.at(np.arange(81)), rtol=1e-12)


def test_a_power_phase_is_a_power_of_the_step():
    phases = (Phase("warm-up", length="100 steps"), Phase("power", to="peak/10"))
    rate = compile_schedule(Schedule(1e-3, 0.0, phases), 10_000, BATCH_TOKENS)
    steps = np.geomspace(100, 10_000, 50)
    assert np.allclose(rate.at(steps), 1e-3 * (steps / 100) ** -0.5, rtol=1e-12)  # a tenth at 100 times the step


RATES = st.floats(1e-6, 1e-2)
DRAWN = st.lists(
    st.tuples(st.sampled_from(sorted(set(SHAPES) - {"hold", "warm-up"})), RATES, st.integers(1, 300)),
    min_size=1,
    max_size=5,
)


@given(RATES, DRAWN)
def test_phases_meet_at_every_border_and_stay_between_their_ends(peak, drawn):
    phases = [Phase("warm-up", length="7 steps")]
    phases += [Phase(shape, to=to, length=f"{length} steps") for shape, to, length in drawn]
    steps = 7 + sum(length for _, _, length in drawn)
    rate = compile_schedule(Schedule(peak, 0.0, tuple(phases)), steps, BATCH_TOKENS)
    border, before = 7, peak
    assert float(rate.at(border)) == pytest.approx(peak, rel=1e-9)
    for _, to, length in drawn:
        inside = rate.at(np.arange(border, border + length + 1))
        assert np.all(inside >= min(before, to) * (1 - 1e-9)) and np.all(inside <= max(before, to) * (1 + 1e-9))
        assert np.all(np.diff(inside) * np.sign(to - before) >= -1e-12 * peak)
        border, before = border + length, to
        assert float(rate.at(border)) == pytest.approx(to, rel=1e-9)
        assert float(rate.at(np.nextafter(border, 0))) == pytest.approx(to, rel=1e-6)  # no jump


RECIPES = "gin/recipes/schedules"
EXPECTED = {  # share of the run -> share of the peak; 1e5 steps
    "reuse": {0: 1, 0.5: 0.505, 0.7113132: 0.2, 1: 0.01},
    "reuse_to_tenth": {0: 1, 0.5: 0.55, 0.7836531: 0.2, 1: 0.1},
    "reuse_to_zero": {0: 1, 0.5: 0.5, 0.7048328: 0.2, 1: 0},
    "rewarm": {0: 0, 0.005: 0.5, 0.01: 1, 0.505: 0.55, 1: 0.1},
    "wsd_linear": {0: 0, 0.01: 1, 0.8: 1, 0.9: 0.5, 1: 0},
    "wsd_1_sqrt": {0: 0, 0.01: 1, 0.8: 1, 0.85: 0.5, 1: 0},
    "wsd_exponential": {0: 0, 0.01: 1, 0.9: 1, 0.95: 0.1**0.5, 1: 0.1},
    "infinite": {0: 0, 0.05: 1, 0.1: 0.775, 0.15: 0.55, 0.8: 0.55, 0.9: (0.55 * 0.1) ** 0.5, 1: 0.1},
    "constant": {0: 0, 0.01: 1, 0.5: 1, 1: 1},
    "anneal": {0: 1, 0.5: 0.5, 1: 0},
    "linear_to_zero": {0: 0, 0.01: 1, 0.505: 0.5, 1: 0},
}


def test_every_recipe_is_expected():
    assert {path.stem for path in epath.Path(RECIPES).glob("*.gin")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_recipes_are_what_their_papers_say(name):
    """arXiv 2407.07263 (reuse); 2403.08763 (re-warm, infinite: the anneal falls by equal factors); 2405.18392 (WSD)."""
    with gin.unlock_config():
        gin.clear_config()
        gin.parse_config_file(f"{RECIPES}/{name}.gin")
        gin.bind_parameter("PEAK_LEARNING_RATE/gin.macro.value", 3e-4)
        gin.parse_config(
            "from __gin__ import dynamic_registration\nfrom cptjax.training import schedule\nS = @schedule.Schedule()"
        )
        rate = compile_schedule(gin.query_parameter("S/gin.macro.value").scoped_configurable_fn(), STEPS, BATCH_TOKENS)
        gin.clear_config()
    shares = EXPECTED[name]
    assert rate.at(np.array(list(shares)) * STEPS) / 3e-4 == pytest.approx(list(shares.values()), abs=1e-6)
    assert rate.end == pytest.approx(STEPS)


def test_a_learning_rate_of_zero_is_never_inherited_without_a_word():
    inherits = Schedule("inherit", "peak", (Phase("cosine", to="peak/100"),))
    with pytest.raises(ConfigurationError, match="ended on a learning rate of 0"):
        compile_schedule(inherits, 100, 10, inherited=0.0)
    with pytest.raises(ConfigurationError, match="nothing would be learned"):
        compile_schedule(Schedule(0, "peak", (Phase("hold"),)), 100, 10)
