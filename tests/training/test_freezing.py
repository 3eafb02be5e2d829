"""Frozen weights: which they are, by name and by layer, and that they keep their bits."""

import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.model import abstract_weights
from cptjax.training.freezing import Freeze, describe_freezing, never_trained, thaw_steps

SMALL = DecoderConfig(vocabulary=32, hidden=16, layers=4, heads=2, kv_heads=1, head_dim=8, mlp=32)
WEIGHTS = abstract_weights(SMALL)


def thaw(*freezes, weights=WEIGHTS):
    return thaw_steps(freezes, weights, total_steps=1000, batch_tokens=64)


def test_nothing_is_frozen_by_default():
    steps = thaw()
    assert set(steps) == set(WEIGHTS) and all((each == 0).all() for each in steps.values())
    assert describe_freezing(steps) == [] and never_trained(steps) == []


def test_names_patterns_and_layers():
    steps = thaw(Freeze("embedding.table"), Freeze("layers.*", layers=(1, 3), until="20%"))
    assert np.isinf(steps["embedding.table"]).all() and never_trained(steps) == ["embedding.table"]
    kernel = steps["layers.mlp.up.kernel"]
    assert kernel.shape == (4, 1, 1) and kernel.ravel().tolist() == [0, 200, 200, 0]
    assert (steps["head.kernel"] == 0).all() and steps["head.kernel"].shape == (1, 1)
    first, second = describe_freezing(steps)
    assert first == "for the whole run: embedding.table"
    assert second.startswith("2 of 4 layers until step 200: layers.") and "layers.mlp.up.kernel" in second


def test_the_latest_of_several_holds():
    steps = thaw(
        Freeze("*.attention.*", until="100 steps"), Freeze("*", layers=(0, 2), until="6400 tokens"), Freeze("*", (3, 4))
    )
    assert steps["layers.attention.query.kernel"].ravel().tolist() == [100, 100, 100, np.inf]
    assert steps["layers.mlp.up.kernel"].ravel().tolist() == [100, 100, 0, np.inf]


def test_layers_of_a_repeating_pattern_are_counted_through():
    config = DecoderConfig(
        vocabulary=32, hidden=16, layers=4, heads=2, kv_heads=1, head_dim=8, mlp=32, windows=(4, None)
    )
    steps = thaw(Freeze("*", layers=(1, 3)), weights=abstract_weights(config))
    assert steps["layers.pattern_0.mlp.up.kernel"].ravel().tolist() == [0, np.inf]  # layers 0 and 2
    assert steps["layers.pattern_1.mlp.up.kernel"].ravel().tolist() == [np.inf, 0]  # layers 1 and 3


@pytest.mark.parametrize(
    "freeze, message",
    [
        (Freeze("*"), "every weight is frozen"),
        (Freeze("layers.none"), "'layers.none', which no weight is called"),
        (Freeze("*", layers=(0, 5)), "within 0 and 4"),
        (Freeze("*", layers=(2, 2)), "within 0 and 4"),
        (Freeze("embedding.*", layers=(0, 1)), "none of embedding.table belongs to a layer"),
        (Freeze("embedding.*", until="soon"), "Freeze.until"),
        (Freeze("embedding.*", until="1e9 steps"), "never comes in a run"),
    ],
)
def test_what_cannot_be_meant_is_refused(freeze, message):
    with pytest.raises(ConfigurationError, match=message):
        thaw(freeze)


@pytest.mark.parametrize(
    "settings", [{"weights": None}, {"weights": [3]}, {"layers": 5}, {"layers": (1,)}, {"layers": (0, 1.5)}]
)
def test_values_of_another_kind_are_refused(settings):
    with pytest.raises(ConfigurationError, match="Freeze"):
        Freeze(**settings)
