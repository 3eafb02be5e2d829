"""Stages as people write them: replay ratios, triggers, and the mistakes that can be made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.blend import Blend, ByTemperature, Fraction, LrFraction, Ramp, Stage, Tokens, budget, replay
from cptjax.data.blends import stages
from cptjax.data.stage_steps import resolve_stages
from cptjax.errors import ConfigurationError


def test_replay_is_the_share_of_the_general_side():
    assert replay("law", "web", 0.25) == {"law": 0.75, "web": 0.25}
    assert replay("law", ["web", "books"], 0.2) == {"law": 0.8, "web": 0.1, "books": 0.1}
    assert replay({"law": 1, "code": 3}, "web", 0.2) == {"law": 0.2, "code": 0.6, "web": 0.2}
    assert replay("law", "web", 0) == {"law": 1.0} and replay("law", "web", 1) == {"web": 1.0}


@given(st.floats(0, 1), st.dictionaries(st.sampled_from("abc"), st.floats(0.1, 9), min_size=1))
def test_the_ratio_is_exact_whatever_the_weights(ratio, general):
    weights = replay("law", general, ratio)
    assert sum(weights.get(name, 0) for name in general) == pytest.approx(ratio, abs=1e-15)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("target", "general", "ratio"), [("a", "b", 1.5), ("a", "b", -1), ("a", ["a"], 0.5), ([], "b", 0.5)]
)
def test_a_replay_that_makes_no_sense_is_refused(target, general, ratio):
    with pytest.raises(ConfigurationError, match="replay"):
        replay(target, general, ratio)


def test_triggers_become_steps():
    def ends(until, **given):
        return [
            steps for *_, steps in resolve_stages(Blend([Stage("a", {"x": 1}, until), Stage("b", {"y": 1})]), **given)
        ]

    assert ends(Tokens(1000), total_steps=100, tokens_per_step=100) == [10, 90]
    assert ends(Tokens(1001), total_steps=100, tokens_per_step=100) == [11, 89]
    assert ends(Fraction(0.75), total_steps=100, tokens_per_step=100) == [75, 25]
    assert ends(
        LrFraction(0.2), total_steps=100, tokens_per_step=1, step_at_lr_fraction=lambda f: round(100 * (1 - f))
    ) == [
        80,
        20,
    ]
    assert resolve_stages(Blend([Stage("only", {"x": 2})]), 7, 10) == [("only", {"x": 2}, 7)]


def test_a_ramp_is_a_stage_before_its_stage():
    first, law = Stage("web", {"web": 1}, Fraction(0.5)), {"law": 1}
    found = resolve_stages(Blend([first, Stage("law", law, ramp=Tokens(2001))]), 100, 100)
    assert found == [("web", {"web": 1}, 50), ("law (ramp)", Ramp({"web": 1}, law), 21), ("law", law, 29)]
    found = resolve_stages(Blend([first, Stage("law", law, ramp=Fraction(0.5))]), 100, 100)
    assert [(name, steps) for name, _, steps in found] == [("web", 50), ("law (ramp)", 50)]
    with pytest.raises(ConfigurationError, match="the ramp of stage 'law' would last 60 of its 50 steps"):
        resolve_stages(Blend([first, Stage("law", law, ramp=Fraction(0.6))]), 100, 100)
    with pytest.raises(ConfigurationError, match="the first stage has none"):
        Blend([Stage("law", law, ramp=Tokens(5))])


def test_weights_by_temperature_add_up_to_one_and_are_refused_by_what_is_wrong():
    found = ByTemperature(["a", "b"], 2).of_sizes({"a": 10**30, "b": 10**28})
    assert found == pytest.approx({"a": 10 / 11, "b": 1 / 11})
    for sources, temperature in (([], 1), ("ab", 1), (["a"], 0), (["a"], -1), (["a"], "hot")):
        with pytest.raises(ConfigurationError, match="ByTemperature"):
            ByTemperature(sources, temperature)


def test_a_budget_is_of_the_run_or_of_what_is_not_replayed():
    assert budget(1e6, 0.2) == 1e6
    assert budget(1e6, 0.2, "add") == 1_250_000 and budget(1e6, 0, "add") == 1e6
    with pytest.raises(ConfigurationError, match="REPLAY_BUDGET is 'both'"):
        budget(1e6, 0.2, "both")
    with pytest.raises(ConfigurationError, match="below 1, not 1"):
        budget(1e6, 1, "add")


def test_stages_as_plain_data():
    assert stages(
        [
            {"name": "general", "sources": ["web", "books"], "temperature": 2, "until": 0.5},
            {"name": "middle", "weights": {"web": 1}, "until": 3e6},
            {"name": "late", "weights": {"web": 2, "law": 1}, "until_lr": 0.2, "ramp": 1e5},
            {"name": "law", "weights": {"law": 1}, "ramp": 0.1},
        ]
    ) == [
        Stage("general", ByTemperature(["web", "books"], 2), Fraction(0.5)),
        Stage("middle", {"web": 1}, Tokens(3e6)),
        Stage("late", {"web": 2, "law": 1}, LrFraction(0.2), Tokens(1e5)),
        Stage("law", {"law": 1}, None, Fraction(0.1)),
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("web", "BLENDS = 'web'"),
        (["web"], "list of stages"),
        ([{"name": "a", "weight": {"x": 1}}], "the key 'weight'"),
        ([{"weights": {"x": 1}}], "a name, and either weights or sources"),
        ([{"name": "a", "weights": {"x": 1}, "sources": ["x"]}], "either weights or sources"),
        ([{"name": "a", "weights": {"x": 1}, "temperature": 2}], "no sources"),
        ([{"name": "a", "weights": ["x"]}], "a share for each source's name"),
        ([{"name": "a", "weights": {"x": 1}, "until": 0.5, "until_lr": 0.5}], "ends in one way"),
        ([{"name": "a", "weights": {"x": 1}, "until": "half"}], "'until' is 'half'"),
        ([{"name": "a", "weights": {"x": 1}, "ramp": 0}], "'ramp' is 0"),
        ([{"name": "a", "weights": {"x": 1}, "until": 1.0}], "'until' is 1.0"),
        ([{"name": ["a"], "weights": {"x": 1}}], "a name that is no text"),
    ],
)
def test_a_stage_that_is_written_wrongly_is_refused_by_name(written, said):
    with pytest.raises(ConfigurationError, match=said):
        stages(written)


@pytest.mark.parametrize("until", [Tokens(0), Tokens(10**6), Fraction(0.999), Fraction(0.001), LrFraction(0.2)])
def test_a_stage_without_steps_or_a_trigger_never_reached_is_refused(until):
    blend = Blend([Stage("a", {"x": 1}, until), Stage("b", {"y": 1})])
    with pytest.raises(ConfigurationError, match="stage '[ab]'"):
        resolve_stages(blend, 100, 10)


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [Stage("a", {"x": 1})] * 2,
        [Stage("a", {"x": 1}), Stage("b", {"x": 1})],
        [Stage("a", {"x": 1}, Tokens(5))],
        [Stage("a", {})],
        [Stage("a", {"x": 0})],
        [Stage("a", {"x": -1, "y": 2})],
        [Stage("a", {"x": "much"})],
        [Stage("a", {"x": float("nan")})],
    ],
)
def test_a_blend_that_makes_no_sense_is_refused(stages):
    with pytest.raises(ConfigurationError, match="stage"):
        Blend(stages)


def test_a_blend_knows_its_sources():
    blend = Blend([Stage("a", {"x": 1, "z": 0}, Tokens(5)), Stage("b", {"y": 1, "x": 2})])
    assert blend.sources == ("x", "y")
