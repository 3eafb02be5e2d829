"""What a run may change in a checkpoint's positions, what is refused, and that transformers computes the same from the export."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig, LinearRope, Llama3Rope, YarnRope
from cptjax.models.families.registry import FAMILIES
from cptjax.models.model import abstract_weights, logits
from cptjax.models.numerics import Numerics
from cptjax.training.longer_context import LongerContext, changes, check_length, describe_changes, lengthened

ORIGINAL, LONGER = 32, 128
IDS = jnp.asarray(np.random.default_rng(0).integers(0, 67, (1, LONGER)))
SIZES = {"vocabulary": 67, "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp": 48}
MODEL = DecoderConfig(**SIZES, maximum_length=ORIGINAL)
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25}
WAYS = {
    "as it was": {},
    "another base": {"rope_theta": 500000.0},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4}},
    "yarn with its attention factor": {"rope_scaling": YARN},
    "llama3": {"rope_scaling": LLAMA3},
    "llama3 and another base": {"rope_theta": 50000, "rope_scaling": LLAMA3},
}


def longer(config=MODEL, **said):
    return lengthened(config, LongerContext(**{"maximum_length": LONGER} | said))


def test_each_way_changes_just_what_it_says():
    assert lengthened(MODEL, LongerContext()) is MODEL
    read = {name: changes(MODEL, longer(**said)) for name, said in WAYS.items()}
    assert all(changed.pop("maximum_length") == LONGER for changed in read.values())
    yarn = {"factor": 4.0, "original_length": ORIGINAL, "fast": 32.0, "slow": 1.0, "truncate": True}
    assert read == {
        "as it was": {},
        "another base": {"rope_theta": 500000.0},
        "linear": {"rope_scaling": {"kind": "linear", "factor": 4.0}},
        "yarn": {"rope_scaling": {"kind": "yarn", "attention_factor": None, **yarn}},
        "yarn with its attention factor": {"rope_scaling": {"kind": "yarn", "attention_factor": 1.25, **yarn}},
        "llama3": {"rope_scaling": Llama3Rope(4.0, 1.0, 4.0, ORIGINAL).to_json()},
        "llama3 and another base": {"rope_theta": 50000.0, "rope_scaling": Llama3Rope(4.0, 1.0, 4.0, 32).to_json()},
    }


def test_numbers_are_written_as_transformers_wants_them():
    scaling = longer(
        rope_scaling={"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 3.2e1}
    ).rope_scaling
    assert type(scaling.factor) is float and type(scaling.original_length) is int
    with pytest.raises(ConfigurationError, match="original_max_position_embeddings = 32.5 is not a whole number"):
        longer(rope_scaling=YARN | {"original_max_position_embeddings": 32.5})


def test_they_are_told_in_a_few_words():
    said = describe_changes(changes(MODEL, longer(rope_theta=5e5, rope_scaling=LLAMA3)))
    assert "rope_theta 500,000" in said and "maximum_length 128" in said
    assert "llama3 (factor 4.0, low_frequency_factor 1.0, high_frequency_factor 4.0, original_length 32)" in said
    stretched = longer(rope_scaling=LLAMA3)
    plain = lengthened(stretched, LongerContext(rope_scaling={"rope_type": "default"}))
    assert plain.rope_scaling is None and describe_changes(changes(stretched, plain)) == "rope_scaling none"


@pytest.mark.parametrize(
    "said, message",
    [
        ({"maximum_length": 16}, "MAXIMUM_LENGTH = 16, but the checkpoint was made for 32"),
        ({"maximum_length": 100.5}, "MAXIMUM_LENGTH = 100.5 is not a whole number"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0"),
        ({"rope_theta": 5000.0}, "ROPE_THETA = 5000, but the checkpoint's base is 10000 already"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "ROPE_SCALING: .* 'dynamic' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "ROPE_SCALING: the linear rope scaling lacks 'factor'"),
        (
            {"rope_scaling": {"rope_type": "default", "factor": 4.0}},
            "'factor' is not known in a rope scaling of type 'default'",
        ),
        ({"rope_scaling": {"factor": 4.0}}, "ROPE_SCALING = .*; write what config.json would say"),
        ({"rope_scaling": {}}, "ROPE_SCALING = {}; write what config.json would say"),
        ({"rope_scaling": "yarn"}, "ROPE_SCALING = 'yarn'; write what config.json would say"),
        ({"rope_theta": "5e5"}, "ROPE_THETA = '5e5'; it is a number above"),
        ({"rope_theta": float("inf")}, "ROPE_THETA = inf; it is a number above"),
        ({"rope_scaling": YARN | {"mscale": 1.0}}, "'mscale' is not known"),
        ({"rope_scaling": YARN | {"factor": 2.0}}, "(?s)reaches 64, and MAXIMUM_LENGTH is 128.*'factor': 4"),
    ],
)
def test_what_cannot_be_is_refused(said, message):
    with pytest.raises(ConfigurationError, match=message):
        longer(**said)


def test_a_stretched_checkpoint_does_not_tell_what_was_before():
    stretched = longer(rope_scaling=YARN)
    with pytest.raises(ConfigurationError, match="stretched already.*\n.*original_max_position_embeddings"):
        longer(stretched, maximum_length=256, rope_scaling={"rope_type": "yarn", "factor": 8.0})
    said = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": ORIGINAL}
    assert longer(stretched, maximum_length=256, rope_scaling=said).rope_scaling == YarnRope(8.0, ORIGINAL)
    with pytest.raises(ConfigurationError, match="YaRN with factor 4 from 32 positions reaches 128"):
        longer(stretched, maximum_length=256)  # and nothing said of its scaling
    assert longer(
        longer(rope_scaling={"rope_type": "linear", "factor": 2}), maximum_length=256
    ).rope_scaling == LinearRope(2)


def test_learned_positions_reach_no_further():
    learned = DecoderConfig(**SIZES | {"kv_heads": 4}, positions="learned", maximum_length=ORIGINAL)
    for said in ({"maximum_length": 64}, {"rope_theta": 5e5}, {"rope_scaling": YARN}):
        with pytest.raises(ConfigurationError, match="learned positions for 32 tokens and none beyond"):
            lengthened(learned, LongerContext(**said))
    with pytest.raises(ConfigurationError, match="learned, and there are none beyond: lower SEQUENCE_LENGTH"):
        check_length(33, learned, random=False)


def test_rows_beyond_the_model_are_refused_with_the_ways_there_are():
    check_length(ORIGINAL, MODEL, random=False)
    with pytest.raises(
        ConfigurationError, match="(?s)made for at most 32.*MAXIMUM_LENGTH = 33.*ROPE_THETA.*ROPE_SCALING"
    ):
        check_length(33, MODEL, random=False)
    with pytest.raises(ConfigurationError, match="config.DecoderConfig.maximum_length"):
        check_length(33, MODEL, random=True)


def test_a_family_that_transformers_does_not_stretch_refuses():
    phi = FAMILIES["phi3"]
    for said in (WAYS["linear"], WAYS["yarn"], WAYS["llama3"]):
        with pytest.raises(ConfigurationError, match="a phi3 config: rope scaling of type .* is not supported"):
            phi.write_config(longer(**said))
    assert phi.write_config(longer(rope_theta=5e5))["rope_theta"] == 5e5


GEMMA = {"norm_unit_offset": True, "activation": "gelu_tanh", "embedding_scale": 32**0.5, "tied_embeddings": True}
LAYER_NORMS = {"norm": "layer", "gated_mlp": False}
BIASES = {"query_key_value_bias": True, "output_bias": True, "mlp_bias": True}
FAMILY_MODELS = {
    "llama": {},
    "mistral": {"windows": (50,)},
    "qwen2": {"query_key_value_bias": True},
    "qwen3": {"query_key_norm": "head"},
    "mixtral": {"experts": 4, "experts_per_token": 2, "expert_mlp": 48, "router_loss": 0.02},
    "qwen3_moe": {"query_key_norm": "head", "experts": 4, "experts_per_token": 2, "expert_mlp": 20},
    "gemma": GEMMA,
    "gemma2": GEMMA | {"norm_placement": "both", "windows": (40, None)},
    "gemma3_text": GEMMA
    | {"norm_placement": "both", "windows": (40, None), "query_key_norm": "head", "window_rope_theta": 300.0},
    "olmo2": {"norm_placement": "after", "query_key_norm": "projection"},
    "nemotron": LAYER_NORMS | {"norm_unit_offset": True, "activation": "relu_squared", "rotary_fraction": 0.5},
    "gpt_neox": LAYER_NORMS
    | BIASES
    | {"kv_heads": 4, "parallel_residual": True, "activation": "gelu", "rotary_fraction": 0.5},
}
HERE = [
    ("llama", "another base"),
    ("llama", "linear"),
    ("llama", "yarn with its attention factor"),
    ("llama", "llama3"),
    ("gemma3_text", "yarn"),
    ("gpt_neox", "llama3 and another base"),
]
# Three ways of each family, so that each way is tried on several: what a family writes of them is one piece of code.
ELSEWHERE = [
    (family, list(WAYS)[(n + 2 * turn) % len(WAYS)]) for n, family in enumerate(FAMILY_MODELS) for turn in range(3)
]
ELSEWHERE = [case for case in ELSEWHERE if case not in HERE]


@functools.cache
def base_of(family):
    """A model of the family, its config.json, random weights, and what they say of some text at the greater length."""
    config = DecoderConfig(**SIZES | {"maximum_length": ORIGINAL} | FAMILY_MODELS[family])
    random = np.random.default_rng(0)
    params = {
        name: random.normal(1.0 if name.endswith(".scale") and not config.norm_unit_offset else 0.0, 0.3, spec.shape)
        for name, spec in abstract_weights(config).items()
    }
    params = {name: jnp.asarray(array, jnp.float32) for name, array in params.items()}
    return (
        config,
        FAMILIES[family].write_config(config) | {"eos_token_id": 2},
        params,
        log_probabilities(params, config),
    )


def log_probabilities(params, config):
    positions = jnp.arange(LONGER)[None]
    scores = jax.jit(lambda params: logits(params, config, Numerics(), IDS, positions, jnp.ones_like(IDS)))
    return np.asarray(jax.nn.log_softmax(scores(params)))


@pytest.mark.parametrize("family, way", [*HERE, *(pytest.param(*case, marks=pytest.mark.slow) for case in ELSEWHERE)])
def test_transformers_computes_the_same_from_the_exported_folder_beyond_the_original_length(family, way, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    before, base, params, unchanged = base_of(family)
    after = longer(before, **WAYS[way])
    written = FAMILIES[family].write_config(after, base)
    assert written["max_position_embeddings"] == LONGER and written["eos_token_id"] == 2
    export_folder(params, after, FAMILIES[family], written, None, tmp_path / "longer")
    assert open_folder(tmp_path / "longer").decoder_config == after
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "longer", dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = torch.log_softmax(model(torch.tensor(np.asarray(IDS))).logits, -1).numpy()
    assert np.abs(log_probabilities(params, after) - theirs).max() < 1e-4
    if way != "as it was":  # and the setting is one that shows
        assert np.abs(unchanged - theirs)[:, ORIGINAL:].max() > 1e-2
