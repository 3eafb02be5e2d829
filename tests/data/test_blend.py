"""Stages as people write them: replay ratios, triggers, and the mistakes that can be made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.blend import Blend, Fraction, LrFraction, Stage, Tokens, replay
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
