"""What a run is told: values of the right kind, in every form that people write, and nothing else."""

import dataclasses

import pytest

from cptjax.data.blend import Stage
from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.training.run import Run
from cptjax.training.schedule import Phase, Schedule
from cptjax.training.start import Random

MODEL = DecoderConfig(vocabulary=32, hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32)


def run(**settings):
    schedule = Schedule(1e-3, "peak", (Phase("hold"),))
    start = Random(MODEL, "llama", "tokenizer")
    return Run("out", start, {"a": "a.txt"}, [Stage("all", {"a": 1.0})], schedule, 1e4, 512, 64, **settings)


@pytest.mark.parametrize(
    "written, spans",
    [([], ()), (7, ((7, 7),)), ([120, [130, 139]], ((120, 120), (130, 139))), ([[5, 6], 2.0], ((2, 2), (5, 6)))],
)
def test_steps_to_pass_over(written, spans):
    assert run(skip_steps=written).skip_steps == spans


def test_they_are_counted_from_one():
    asked = run(skip_steps=[3, [7, 8]])
    assert [step for step in range(10) if asked.passes_over(step)] == [2, 6, 7]


@pytest.mark.parametrize("written", [0, [0], [[5, 4]], ["a"], [[1, 2, 3]], [None], [1.5]])
def test_steps_that_cannot_be_are_refused(written):
    with pytest.raises(ConfigurationError, match="SKIP_STEPS"):
        run(skip_steps=written)


def test_steps_to_profile_may_be_written_as_other_numbers_are():
    assert run(profile_steps=(1e1, 12)).profile_steps == (10, 12)


@pytest.mark.parametrize("steps", [(3, 2), (0, 1), (1,), ("a", "b"), (1, 2, 3)])
def test_steps_that_cannot_be_profiled_are_refused(steps):
    with pytest.raises(ConfigurationError, match="PROFILE_STEPS"):
        run(profile_steps=steps)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"freeze": ["embedding.table"]}, "freezing.Freeze"),
        ({"average": 1.0}, "AVERAGE"),
        ({"average": "much"}, "AVERAGE"),
        ({"clip_norm": 0}, "CLIP_NORM"),
        ({"router_loss": -0.1}, "ROUTER_LOSS"),
        ({"router_loss": "always"}, "ROUTER_LOSS"),
        ({"z_loss": -1e-4}, "Z_LOSS"),
        ({"z_loss": "small"}, "Z_LOSS"),
    ],
)
def test_values_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        run(**settings)


def test_the_routers_loss_is_the_checkpoints_or_the_runs():
    says = dataclasses.replace(
        MODEL, experts=2, experts_per_token=1, expert_mlp=8, router_loss=0.02, adds_router_loss=True
    )
    silent = dataclasses.replace(says, adds_router_loss=False)
    assert [run().router_loss_of(model) for model in (MODEL, says, silent)] == [0.0, 0.02, 0.0]
    assert [run(router_loss="inherit").router_loss_of(model) for model in (says, silent)] == [0.02, 0.02]
    assert [run(router_loss=value).router_loss_of(says) for value in (0, 0.5)] == [0.0, 0.5]
    for value in ("inherit", 0.1):
        with pytest.raises(ConfigurationError, match="the model has no experts"):
            run(router_loss=value).router_loss_of(MODEL)
