"""Configs refuse what cannot be, by the field's name, and survive JSON."""

import json

import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig, Llama3Rope, Numerics

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
    ],
)
def test_a_bad_field_is_named(field, value, message):
    with pytest.raises(ConfigurationError, match=message):
        DecoderConfig(**GOOD | {field: value})


def test_numerics_are_checked_by_name():
    for field, value in {"compute_dtype": "float8", "remat": "some", "attention": "splash", "scan_layers": 1}.items():
        with pytest.raises(ConfigurationError, match=f"{field} = {value!r}"):
            Numerics(**{field: value})


def test_rope_scaling_bounds_are_ordered():
    with pytest.raises(ConfigurationError, match="high_frequency_factor"):
        Llama3Rope(8.0, 4.0, 4.0, 8192)


@pytest.mark.parametrize("extra", [{}, {"rope_scaling": Llama3Rope(8.0, 1.0, 4.0, 8192), "windows": [None, 7]}])
def test_json_gives_back_an_equal_config(extra):
    config = DecoderConfig(**GOOD | extra)
    returned = DecoderConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert returned == config and hash(returned) == hash(config)


def test_json_with_unknown_or_missing_fields_is_refused():
    with pytest.raises(ConfigurationError, match="unknown field 'experts'"):
        DecoderConfig.from_json(GOOD | {"experts": 8})
    with pytest.raises(ConfigurationError, match="mlp"):
        DecoderConfig.from_json({name: value for name, value in GOOD.items() if name != "mlp"})
