"""The states behind any layer are those that transformers gives in hidden_states; pooled, those of the last token or their mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.errors import ConfigurationError
from cptjax.models.layer_states import layer_number, layer_states, pooled
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 67,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
# OPT is what D4 embeds with; the other has a pattern of two layers, with a window and without.
THEIRS = {
    "OPT": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 0},
    "Gemma2": {
        **SMALL,
        "intermediate_size": 48,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 6,
        "pad_token_id": 0,
    },
}


@pytest.mark.parametrize("name", THEIRS)
def test_every_layer_is_theirs(name, tmp_path):
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**THEIRS[name])).eval()
    theirs.save_pretrained(tmp_path)
    folder, mesh = open_folder(tmp_path), build_mesh({"fsdp": 1}, jax.devices()[:1])
    params, config = load_parameters(folder, mesh), folder.decoder_config
    ids = np.random.default_rng(0).integers(1, 67, (2, 17))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), output_hidden_states=True).hidden_states
    places, segments = jnp.broadcast_to(jnp.arange(17), ids.shape), jnp.ones(ids.shape, jnp.int32)
    ids = jnp.asarray(ids)
    numerics = Numerics()
    layers = [layer_number(config, layer) for layer in (0, 1, 2, -1)]

    @jax.jit
    def every(params, ids):
        return [layer_states(params, config, numerics, ids, places, segments, layer) for layer in layers]

    for layer, found in zip(layers, every(params, ids), strict=True):
        np.testing.assert_allclose(found, expected[layer].numpy(), atol=3e-5, rtol=3e-5)


def test_pooling_sees_a_rows_own_tokens_alone():
    states = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.float32)
    segments = jnp.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    last, mean = (np.asarray(pooled(states, segments, how)) for how in ("last", "mean"))
    for row, n in enumerate((3, 5, 1)):
        own = np.asarray(states)[row, :n]
        np.testing.assert_array_equal(last[row], own[-1])
        np.testing.assert_allclose(mean[row], own.mean(0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("wrong", [5, -6, True, 1.5])
def test_layers_that_are_none_are_refused(wrong):
    class Four:
        layers = 4

    assert [layer_number(Four, n) for n in (0, 4, -1, -5)] == [0, 4, 4, 0]
    with pytest.raises(ConfigurationError, match="LAYER"):
        layer_number(Four, wrong)
