"""Configs refuse what cannot be, by the field's name, and survive JSON."""

import json

import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig, LinearRope, Llama3Rope, YarnRope
from cptjax.models.numerics import Numerics

GOOD = {"vocabulary": 64, "hidden": 16, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 4, "mlp": 24}


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("hidden", 0, "hidden = 0"),
        ("hidden", 16.0, "hidden = 16.0"),
        ("layers", True, "layers = True"),
        ("kv_heads", 3, "kv_heads = 3 does not divide heads = 4"),
        ("head_dim", 5, "head_dim = 5"),
        ("norm_epsilon", -1e-5, "norm_epsilon"),
        ("rope_theta", float("nan"), "rope_theta"),
        ("windows", (), "windows"),
        ("windows", (None, 4, 4), "windows .* does not divide layers = 4"),
        ("windows", (0,), "windows holds 0"),
        ("mlp_bias", 1, "mlp_bias = 1"),
        ("rope_scaling", {"factor": 8}, "rope_scaling"),
        ("norm", "batch", "norm = 'batch'; it must be one of rms, layer"),
        ("norm_placement", "between", "norm_placement = 'between'"),
        ("activation", "mish", "activation = 'mish'"),
        ("query_key_norm", True, "query_key_norm = True"),
        ("rotary_fraction", 0.25, "turn 1 dimensions"),
        ("rotary_fraction", 2.0, "turn 8 dimensions"),
        ("position_offset", 2, "position_offset says nothing"),
        ("gated_mlp", None, "gated_mlp = None"),
        ("logit_soft_cap", 0.0, "logit_soft_cap = 0.0"),
        ("embedding_width", 8.0, "embedding_width = 8.0"),
    ],
)
def test_a_bad_field_is_named(field, value, message):
    with pytest.raises(ConfigurationError, match=message):
        DecoderConfig(**GOOD | {field: value})


def test_numerics_are_checked_by_name():
    for field, value in {"compute_dtype": "float8", "remat": "some", "attention": "flash", "scan_layers": 1}.items():
        with pytest.raises(ConfigurationError, match=f"{field} = {value!r}"):
            Numerics(**{field: value})


def test_rope_scaling_bounds_are_ordered():
    with pytest.raises(ConfigurationError, match="high_frequency_factor"):
        Llama3Rope(8.0, 4.0, 4.0, 8192)


def test_fields_that_exclude_each_other_are_named():
    with pytest.raises(ConfigurationError, match="parallel_residual"):
        DecoderConfig(**GOOD, parallel_residual=True, norm_placement="after")
    with pytest.raises(ConfigurationError, match="rope_scaling says nothing where positions are learned"):
        DecoderConfig(**GOOD, positions="learned", rope_scaling=LinearRope(2.0))


def test_json_of_a_model_without_later_fields_is_as_it_always_was():
    written = DecoderConfig(**GOOD, rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 8192)).to_json()
    assert list(written)[-1] == "maximum_length" and "norm" not in written
    assert list(written["rope_scaling"]) == [
        "factor",
        "low_frequency_factor",
        "high_frequency_factor",
        "original_length",
    ]


MIXTURE = {"experts": 4, "experts_per_token": 2, "expert_mlp": 12}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"experts": None, "expert_mlp": None}, "experts_per_token says nothing where experts is None"),
        (
            {"experts": None, "experts_per_token": None, "expert_mlp": None, "router_loss": 0.1},
            "router_loss says nothing",
        ),
        ({"expert_mlp": None}, "experts needs experts_per_token and expert_mlp"),
        ({"experts": 0}, "experts = 0"),
        ({"experts_per_token": 5}, "experts_per_token = 5 of experts = 4"),
        ({"mlp_bias": True}, "no mlp_bias"),
        ({"gated_mlp": False}, "gated_mlp"),
        ({"dense_layers": (True,)}, "dense_layers = .True,."),
        ({"dense_layers": (True, False)}, "dense_layers"),
        ({"dense_layers": (0,)}, "dense_layers"),
        ({"router_loss": -0.1}, "router_loss = -0.1"),
        ({"router_loss": True}, "router_loss = True"),
        ({"renormalised_experts": 1}, "renormalised_experts = 1"),
    ],
)
def test_experts_that_cannot_be_are_named(change, message):
    with pytest.raises(ConfigurationError, match=message):
        DecoderConfig(**GOOD | MIXTURE | change)


LATER = {"norm": "layer", "query_key_norm": "head", "embedding_scale": 2.5, "rope_scaling": YarnRope(4.0, 64)}


@pytest.mark.parametrize(
    "extra",
    [
        {},
        LATER,
        MIXTURE | {"dense_layers": (True, False), "windows": (None, None), "router_loss": 0.02},
        {"rope_scaling": LinearRope(2.0)},
        {"rope_scaling": Llama3Rope(8.0, 1.0, 4.0, 8192), "windows": [None, 7]},
    ],
)
def test_json_gives_back_an_equal_config(extra):
    config = DecoderConfig(**GOOD | extra)
    returned = DecoderConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert returned == config and hash(returned) == hash(config)


def test_json_with_unknown_or_missing_fields_is_refused():
    with pytest.raises(ConfigurationError, match="unknown field 'memories'"):
        DecoderConfig.from_json(GOOD | {"memories": 8})
    with pytest.raises(ConfigurationError, match="mlp"):
        DecoderConfig.from_json({name: value for name, value in GOOD.items() if name != "mlp"})
