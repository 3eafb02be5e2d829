"""Hugging Face folders: what is read, what is refused, and what is given back."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import identity, open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.checkpoints.safetensors import SafetensorsFile, TensorSpec
from cptjax.checkpoints.safetensors_writing import write_tensors
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.mixtral import MIXTRAL
from cptjax.models.families.qwen2 import QWEN2
from cptjax.models.model import initialize, logits, token_losses
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

TINY = DecoderConfig(vocabulary=48, hidden=16, layers=3, heads=4, kv_heads=2, head_dim=4, mlp=24)
MIXTURE = dataclasses.replace(TINY, experts=4, experts_per_token=2, expert_mlp=24)
MESHES = [{"fsdp": 1}, {"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"replica": 2, "fsdp": 4}]


def mesh_of(sizes):
    return build_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])


def export(folder, config=TINY, family=LLAMA, **options):
    params = initialize(config, 0, mesh_of({"fsdp": 1}))
    export_folder(params, config, family, None, None, folder, **options)
    return params


def rewrite(folder, change):
    """The single safetensors file of `folder`, written again after `change` was made to its dict of tensors."""
    file = SafetensorsFile(folder / "model.safetensors")
    tensors = {name: np.array(file.read(name)) for name in file.specs}
    tensors = change(tensors) or tensors
    specs = {name: TensorSpec(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    write_tensors(folder, specs, iter(tensors.values()), 10**9)


# ---- stories260K: a real checkpoint, and numbers computed elsewhere


@pytest.fixture(scope="module")
def stories(shared_data):
    return open_folder(shared_data / "stories260K")


@pytest.fixture(scope="module")
def story(shared_data):
    return [int(token) for token in (shared_data / "stories260K" / "greedy_256_tokens.txt").read_text().split()]


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_stories260k_scores_its_own_greedy_text(stories, story, sizes):
    mesh = mesh_of(sizes)
    params = load_parameters(stories, mesh)
    rows = jnp.tile(jnp.asarray(story), (8, 1))
    batch = {
        "inputs": rows[:, :-1],
        "targets": rows[:, 1:],
        "positions": jnp.tile(jnp.arange(rows.shape[1] - 1), (8, 1)),
        "segment_ids": jnp.ones_like(rows[:, 1:]),
    }
    with jax.set_mesh(mesh):
        losses = jax.jit(lambda params, batch: token_losses(params, stories.decoder_config, Numerics(), batch))(
            params, batch
        )
    assert float(losses.mean()) == pytest.approx(0.45735, abs=5e-6)


def test_stories260k_repeats_its_257_greedy_tokens(stories, story):
    params = load_parameters(stories, mesh_of({"fsdp": 1}))
    positions = jnp.arange(len(story))[None]

    @jax.jit
    def extended(ids, length):
        scores = logits(params, stories.decoder_config, Numerics(), ids, positions, jnp.ones_like(ids))
        return ids.at[0, length].set(jnp.argmax(scores[0, length - 1]).astype(ids.dtype))

    ids = jnp.zeros((1, len(story)), jnp.int32).at[0, 0].set(story[0])
    for length in range(1, len(story)):
        ids = extended(ids, length)
    assert ids[0].tolist() == story and len(story) == 257


def test_stories260k_returns_bit_for_bit_with_its_tokenizer(stories, tmp_path):
    params = load_parameters(stories, mesh_of({"fsdp": 4, "tensor": 2}))
    config, family = stories.decoder_config, stories.family
    export_folder(params, config, family, stories.config, stories.path, tmp_path / "back", shard_bytes=300_000)
    back = open_folder(tmp_path / "back")
    assert back.config == stories.config
    assert identity(back) == identity(stories)  # although it is cut into shards now
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == (stories.path / "tokenizer.model").read_bytes()


# ---- in


@pytest.mark.parametrize("sizes", MESHES, ids=str)
@pytest.mark.parametrize("shard_bytes", [10**9, 5_000])
def test_parameters_arrive_on_any_mesh_as_they_left(tmp_path, sizes, shard_bytes):
    config = dataclasses.replace(TINY, windows=(None, 4), layers=4, query_key_value_bias=True)
    params = export(tmp_path / "model", config, QWEN2, shard_bytes=shard_bytes)
    loaded = load_parameters(open_folder(tmp_path / "model"), mesh_of(sizes))
    assert set(loaded) == set(params)
    for name, value in params.items():
        assert loaded[name].dtype == jnp.float32 and np.array_equal(loaded[name], value), name


@pytest.mark.parametrize("sizes", [{"fsdp": 4, "tensor": 2}])
def test_experts_arrive_layer_by_layer_and_expert_by_expert(tmp_path, sizes):
    params = export(tmp_path / "model", MIXTURE, MIXTRAL, shard_bytes=5_000)
    loaded = load_parameters(open_folder(tmp_path / "model"), mesh_of(sizes))
    for name, value in params.items():
        assert np.array_equal(loaded[name], value), name
    kernel = loaded["layers.mlp.experts.down.kernel"]
    assert kernel.shape == (3, 4, 24, 16) and kernel.addressable_shards[0].data.shape == (3, 4, 12, 4)
    tensors = open_folder(tmp_path / "model").tensors
    name = "model.layers.1.block_sparse_moe.experts.3.w2.weight"
    assert np.array_equal(tensors[name].read(name), np.asarray(kernel[1, 3]).T)


def test_an_expert_that_is_missing_or_not_finite_is_named(tmp_path):
    name = "model.layers.2.block_sparse_moe.experts.1.w3.weight"
    export(tmp_path / "model", MIXTURE, MIXTRAL)
    rewrite(tmp_path / "model", lambda tensors: tensors | {name: tensors[name] + np.float32(np.nan)})
    with pytest.raises(CptjaxError, match=f"tensor '{name}' holds values that are not finite"):
        load_parameters(open_folder(tmp_path / "model"), mesh_of({"fsdp": 1}))
    rewrite(tmp_path / "model", lambda tensors: {each: tensors[each] for each in tensors if each != name})
    with pytest.raises(CptjaxError, match=f"lacks 1 tensor.*'{name}'"):
        open_folder(tmp_path / "model")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_are_widened_exactly(tmp_path, dtype):
    params = export(tmp_path / "model", dtype=dtype)
    folder = open_folder(tmp_path / "model")
    assert folder.config["torch_dtype"] == dtype
    for name, value in load_parameters(folder, mesh_of({"fsdp": 1})).items():
        assert np.array_equal(value, params[name].astype(dtype).astype(jnp.float32)), name


def test_identity_sees_any_flipped_bit_and_any_setting(tmp_path):
    export(tmp_path / "model")
    first = identity(open_folder(tmp_path / "model"))
    path = tmp_path / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    second = identity(open_folder(tmp_path / "model"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"rope_theta": 20000.0}))
    assert len({first, second, identity(open_folder(tmp_path / "model"))}) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: {n: x for n, x in t.items() if "2.mlp.up" not in n},
            "lacks 1 tensor.*'model.layers.2.mlp.up_proj.weight'",
        ),
        (
            lambda t: t | {"model.layers.3.mlp.up_proj.weight": np.ones(3)},
            "'model.layers.3.mlp.up_proj.weight', for which",
        ),
        (
            lambda t: t | {"model.layers.1.mlp.up_proj.weight": t["model.layers.1.mlp.up_proj.weight"].T.copy()},
            r"model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight' has shape \(16, 24\); .* \(24, 16\)",
        ),
        (
            lambda t: t | {"lm_head.weight": np.ones((47, 16), np.float32)},
            r"'lm_head.weight' has shape \(47, 16\).*\(48, 16\)",
        ),
        (lambda t: t | {"model.norm.weight": np.ones(16, np.int8)}, "'model.norm.weight' has dtype I8"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(tmp_path, change, message):
    export(tmp_path / "model")
    rewrite(tmp_path / "model", change)
    with pytest.raises(CptjaxError, match=message):
        open_folder(tmp_path / "model")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(tmp_path, value):
    export(tmp_path / "model")

    def spoil(tensors):
        tensors["model.layers.1.self_attn.k_proj.weight"][3, 5] = value

    rewrite(tmp_path / "model", spoil)
    with pytest.raises(
        CptjaxError,
        match="model.safetensors: tensor 'model.layers.1.self_attn.k_proj.weight' holds values that are not finite",
    ):
        load_parameters(open_folder(tmp_path / "model"), mesh_of({"fsdp": 8}))


def test_leftovers_of_older_checkpoints_are_passed_over(tmp_path):
    export(tmp_path / "model")
    rewrite(tmp_path / "model", lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)})
    load_parameters(open_folder(tmp_path / "model"), mesh_of({"fsdp": 1}))


def test_a_tied_head_may_be_stored_but_not_differ(tmp_path):
    export(tmp_path / "model", dataclasses.replace(TINY, tied_embeddings=True))
    table = "model.embed_tokens.weight"
    rewrite(tmp_path / "model", lambda t: t | {"lm_head.weight": t[table]})
    load_parameters(open_folder(tmp_path / "model"), mesh_of({"fsdp": 1}))
    rewrite(tmp_path / "model", lambda t: t | {"lm_head.weight": t[table] + 1})
    with pytest.raises(CptjaxError, match="'lm_head.weight' differs from 'model.embed_tokens.weight'"):
        load_parameters(open_folder(tmp_path / "model"), mesh_of({"fsdp": 1}))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no folder"):
        open_folder(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds no config.json"):
        open_folder(tmp_path / "empty")
    export(tmp_path / "model")
    with pytest.raises(ConfigurationError, match="model.safetensors .it is a file; name the folder it is in: .*/model"):
        open_folder(tmp_path / "model" / "model.safetensors")
    config = (tmp_path / "model" / "config.json").read_text()
    (tmp_path / "empty" / "config.json").write_text(config)
    with pytest.raises(ConfigurationError, match="holds no weights"):
        open_folder(tmp_path / "empty")
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ConfigurationError, match=r"only as pickles \(pytorch_model.bin\)"):
        open_folder(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text(config[:40])
    with pytest.raises(CptjaxError, match="config.json is not readable JSON"):
        open_folder(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(ConfigurationError, match="'mamba' is not supported"):
        open_folder(tmp_path / "empty")


@pytest.mark.parametrize(
    "file, content, error, message",
    [
        (
            "model-00001-of-00002.safetensors",
            b"",
            ConfigurationError,
            "holds model-00001-of-00002.safetensors, but neither",
        ),
        ("adapter_model.safetensors", b"", ConfigurationError, "holds an adapter .adapter_model.safetensors."),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", CptjaxError, "pointer of git LFS"),
    ],
)
def test_what_stands_in_place_of_the_weights_is_said(tmp_path, file, content, error, message):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA.write_config(DecoderConfig(67, 32, 2, 4, 2, 8, 48))))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(error, match=message):
        open_folder(tmp_path)


def test_a_truncated_file_is_refused_before_anything_is_loaded(tmp_path):
    export(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        CptjaxError, match="model.safetensors is truncated: tensor 'model.layers.2.self_attn.v_proj.weight'"
    ):
        open_folder(tmp_path / "model")


def test_a_truncated_shard_is_named_with_its_tensor(tmp_path):
    export(tmp_path / "model", shard_bytes=5_000)
    victim = sorted((tmp_path / "model").glob("model-*.safetensors"))[1]
    last = list(SafetensorsFile(victim).specs)[-1]
    victim.write_bytes(victim.read_bytes()[:-5])
    with pytest.raises(CptjaxError, match=f"{victim.name} is truncated: tensor '{last}'"):
        open_folder(tmp_path / "model")


def test_an_index_that_does_not_match_its_shards_is_refused(tmp_path):
    export(tmp_path / "model", shard_bytes=5_000)
    index_path = tmp_path / "model" / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    names = sorted(set(index["weight_map"].values()))
    assert len(names) > 1

    def attempt(weight_map, message):
        index_path.write_text(json.dumps(index | {"weight_map": weight_map}))
        with pytest.raises(CptjaxError, match=message):
            open_folder(tmp_path / "model")

    first, last = list(index["weight_map"])[0], list(index["weight_map"])[-1]
    attempt({}, "has no weight_map")
    attempt(index["weight_map"] | {first: "../elsewhere.safetensors"}, "shard '../elsewhere.safetensors'")
    attempt(index["weight_map"] | {first: 5}, "shard 5")
    attempt(index["weight_map"] | {first: index["weight_map"][last]}, f"says that tensor '{first}'")
    attempt({name: file for name, file in index["weight_map"].items() if name != last}, f"holds tensor '{last}'")
    (tmp_path / "model" / names[-1]).unlink()
    held = next(tensor for tensor, file in index["weight_map"].items() if file == names[-1])
    attempt(index["weight_map"], f"json names the shard '{names[-1]}', which is not in the folder; tensor '{held}'")


# ---- out


def test_export_never_overwrites(tmp_path):
    export(tmp_path / "model")
    before = identity(open_folder(tmp_path / "model"))
    with pytest.raises(ConfigurationError, match="exists already"):
        export(tmp_path / "model")
    assert identity(open_folder(tmp_path / "model")) == before


def test_an_export_that_fails_leaves_nothing(tmp_path):
    params = initialize(TINY, 0, mesh_of({"fsdp": 1}))
    params["layers.mlp.down.kernel"] = params["layers.mlp.down.kernel"].at[2, 0, 0].set(1e30)
    with pytest.raises(CptjaxError, match="'model.layers.2.mlp.down_proj.weight' is not finite in float16"):
        export_folder(params, TINY, LLAMA, None, None, tmp_path / "model", dtype="float16")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match="'int8'"):
        export_folder(params, TINY, LLAMA, None, None, tmp_path / "model", dtype="int8")


def test_an_export_after_one_that_was_killed_starts_clean(tmp_path):
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        open_folder(tmp_path / "model")
    export(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cptjax.checkpoints.exporting.write_tensors", full)
    with pytest.raises(CptjaxError, match="could not export to .*No space left on device"):
        export(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_files_are_carried_and_weights_are_not(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    carried = [
        "tokenizer.json",
        "special_tokens_map.json",
        "merges.txt",
        "chat_template.jinja",
        "generation_config.json",
    ]
    for name in [*carried, "pytorch_model.bin", "README.md", "model.safetensors"]:
        (source / name).write_text(name)
    params = initialize(TINY, 0, mesh_of({"fsdp": 1}))
    export_folder(params, TINY, LLAMA, None, source, tmp_path / "model")
    found = {path.name for path in (tmp_path / "model").iterdir()}
    assert found == {*carried, "config.json", "model.safetensors"}
    shutil.rmtree(source)
    open_folder(tmp_path / "model")


@pytest.mark.parametrize("experts", [None, 8])
@pytest.mark.parametrize("kept", [True, False], ids=["weights kept where they are read", "taken in by the devices"])
def test_the_host_holds_one_tensor_at_a_time(tmp_path, monkeypatch, experts, kept):
    """Loading to eight devices and exporting again: numpy's peak above what becomes weights stays far below the model."""
    import tracemalloc

    monkeypatch.setattr("cptjax.checkpoints.loading.in_host_memory", lambda devices: kept)

    config = dataclasses.replace(TINY, hidden=128, heads=4, head_dim=32, mlp=256, layers=24)
    family = LLAMA
    if experts is not None:
        config, family = dataclasses.replace(config, layers=6, experts=8, experts_per_token=1, expert_mlp=256), MIXTRAL
    params = export(tmp_path / "model", config, family)
    folder = open_folder(tmp_path / "model")
    mesh = mesh_of({"fsdp": 8})
    total = sum(value.nbytes for value in params.values())
    largest = 4 * 128 * 256
    load_parameters(folder, mesh)  # compiles
    tracemalloc.start()
    loaded = load_parameters(folder, mesh)
    export_folder(loaded, config, family, None, None, tmp_path / "again")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 50 * largest and peak - kept * total < total / 4


@pytest.mark.parametrize("config, family", [(TINY, LLAMA), (MIXTURE, MIXTRAL)], ids=["llama", "mixtral"])
def test_an_export_gathered_by_the_devices_is_the_same(tmp_path, monkeypatch, config, family):
    """As on accelerators, and on several hosts."""
    params = initialize(config, 0, mesh_of({"fsdp": 4, "tensor": 2}))
    export_folder(params, config, family, None, None, tmp_path / "here")
    monkeypatch.setattr("cptjax.checkpoints.exporting.in_host_memory", lambda devices: False)
    export_folder(params, config, family, None, None, tmp_path / "gathered")
    assert identity(open_folder(tmp_path / "gathered")) == identity(open_folder(tmp_path / "here"))


@pytest.mark.parametrize("config, family", [(TINY, LLAMA), (MIXTURE, MIXTRAL)], ids=["llama", "mixtral"])
def test_weights_that_the_devices_take_in_are_the_same(tmp_path, monkeypatch, config, family):
    """As on accelerators, and on several hosts; on CPU devices of one process they stay where they were read to."""
    mesh = mesh_of({"replica": 2, "fsdp": 2, "tensor": 2})
    export_folder(initialize(config, 0, mesh), config, family, None, None, tmp_path / "model")
    read = load_parameters(open_folder(tmp_path / "model"), mesh)
    monkeypatch.setattr("cptjax.checkpoints.loading.in_host_memory", lambda devices: False)
    taken = load_parameters(open_folder(tmp_path / "model"), mesh)
    for name in read:
        assert taken[name].sharding == read[name].sharding
        np.testing.assert_array_equal(np.asarray(taken[name]), np.asarray(read[name]))


def test_weights_where_they_were_read_to_may_be_donated(tmp_path):
    """What a step updates in place it gets as its own: neither the file nor another device's replica changes."""
    mesh = mesh_of({"replica": 8})
    export_folder(initialize(TINY, 0, mesh), TINY, LLAMA, None, None, tmp_path / "model")
    folder = open_folder(tmp_path / "model")
    before = identity(folder)
    params = load_parameters(folder, mesh)
    expected = {name: np.array(value) for name, value in params.items()}
    update = jax.jit(lambda params: jax.tree.map(lambda value: 2 * value + 1, params), donate_argnums=0)
    updated = update(params)
    assert all(value.is_deleted() for value in params.values()) and identity(folder) == before
    for name, value in updated.items():
        for shard in value.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), 2 * expected[name] + 1)
