"""Merging: each method against numpy by hand, what is read and held, and what is refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints import merging
from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.checkpoints.safetensors import SafetensorsFile, TensorSpec
from cptjax.checkpoints.safetensors_writing import write_tensors
from cptjax.checkpoints.source import open_checkpoint, write_model_folder
from cptjax.checkpoints.store import CheckpointStore
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.jobs.merge import merge
from cptjax.models.config import DecoderConfig
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.mistral import MISTRAL
from cptjax.models.families.mixtral import MIXTRAL
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

TINY = DecoderConfig(vocabulary=48, hidden=16, layers=3, heads=4, kv_heads=2, head_dim=4, mlp=24)


def one_device():
    return build_mesh({"fsdp": 1}, jax.devices()[:1])


def made(folder, seed, config=TINY, family=LLAMA, **options):
    export_folder(initialize(config, seed, one_device()), config, family, None, None, folder, **options)
    return str(folder)


def tensors_of(folder):
    opened = open_folder(folder)
    return {name: np.asarray(file.read(name), np.float64) for name, file in opened.tensors.items()}


def arc(a, b, t):
    """Shoemake's slerp of two tensors, as vectors."""
    angle = np.arccos(np.clip((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()), -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


@pytest.fixture
def three(tmp_path):
    return [made(tmp_path / "a", 1), made(tmp_path / "b", 2, shard_bytes=5_000), made(tmp_path / "c", 3)]


@pytest.mark.parametrize(
    "count, settings, by_hand",
    [
        (3, {}, lambda a, b, c: (a + b + c) / 3),
        (3, {"weights": [1, 2, 5]}, lambda a, b, c: (a + 2 * b + 5 * c) / 8),
        (2, {"method": "linear", "fraction": 0.25}, lambda a, b: 0.75 * a + 0.25 * b),
        (2, {"method": "linear", "fraction": 1.5}, lambda a, b: 1.5 * b - 0.5 * a),
        (2, {"method": "spherical", "fraction": 0.25}, lambda a, b: arc(a, b, 0.25)),
        (2, {"method": "task_arithmetic", "weights": [0.5, -1]}, lambda a, b, c: c + 0.5 * (a - c) - (b - c)),
        (1, {"method": "task_arithmetic"}, lambda a, c: c + (a - c)),
    ],
)
def test_each_method_is_what_numpy_makes_by_hand(three, tmp_path, count, settings, by_hand):
    given = three[:count]
    if settings.get("method") == "task_arithmetic":
        settings = {**settings, "base": three[2]}
    merge(given, str(tmp_path / "merged"), **settings)
    sources = [tensors_of(path) for path in given + ([settings["base"]] if "base" in settings else [])]
    found = tensors_of(tmp_path / "merged")
    assert set(found) == set(sources[0])
    for name, value in found.items():
        expected = by_hand(*(source[name] for source in sources))
        assert np.abs(value - expected).max() <= 1e-7 * max(1, np.abs(expected).max()), name


def test_an_average_of_equals_and_the_ends_of_a_line_and_an_arc_are_exact(three, tmp_path):
    first, second = tensors_of(three[0]), tensors_of(three[1])
    for n, (paths, settings, expected) in enumerate(
        [
            ([three[0]] * 3, {}, first),
            (three[:2], {"method": "linear", "fraction": 0}, first),
            (three[:2], {"method": "spherical", "fraction": 1.0}, second),
            ([three[0]] * 2, {"method": "spherical", "fraction": 0.3}, first),
        ]
    ):
        merge(paths, str(tmp_path / f"m{n}"), **settings)
        for name, value in tensors_of(tmp_path / f"m{n}").items():
            assert np.array_equal(value, expected[name]), (n, name)


def test_opposite_and_empty_vectors_have_no_arc():
    vector = np.arange(1, 9, dtype=np.float32)
    for first, second in ((vector, -vector), (vector, 0 * vector), (0 * vector, 0 * vector)):
        assert merging.spherical(0.25)([first, second]) == [0.75, 0.25]


def test_a_long_tensor_is_combined_in_blocks_and_rounded_once(monkeypatch):
    rng = np.random.default_rng(0)
    tensors = [rng.normal(size=1000).astype(np.float32) for _ in range(3)]
    first, second, third = (tensor.astype(np.float64) for tensor in tensors)
    expected = (0.1 * first + 0.2 * second + 0.7 * third).astype(np.float32)
    whole = merging.combined(tensors, [0.1, 0.2, 0.7])
    monkeypatch.setattr(merging, "_BLOCK", 7)
    assert np.array_equal(merging.combined(tensors, [0.1, 0.2, 0.7]), whole)
    assert np.array_equal(whole, expected)


MIXTURE = {"experts": 3, "experts_per_token": 2, "expert_mlp": 24}


@pytest.mark.parametrize(
    "family, experts",
    [(LLAMA, {}), pytest.param(MIXTRAL, MIXTURE, marks=pytest.mark.slow)],
    ids=["llama", "mixtral"],
)
def test_runs_and_folders_in_any_dtype_are_merged(tmp_path, family, experts):
    config = dataclasses.replace(TINY, layers=4, tied_embeddings=True, **experts)
    params = initialize(config, 5, build_mesh({"fsdp": 8}))
    half = made(tmp_path / "half", 6, config, family, dtype="bfloat16")
    run = tmp_path / "run"
    write_model_folder(run, open_folder(half).config, tmp_path / "half")
    with CheckpointStore(run / "checkpoints") as store:
        lineage = open_checkpoint(half).lineage.to_json()
        metadata = {"lineage": lineage, "has_optimizer": False, "model": config.to_json()}
        store.save(0, {"step": jnp.zeros((), jnp.int32), "params": params}, metadata)
    merge({"run": str(run), "half": half}, str(tmp_path / "m"), weights={"half": 1, "run": 3}, dtype="float32")
    found = load_parameters(open_folder(tmp_path / "m"), build_mesh({"fsdp": 8}))
    other = load_parameters(open_folder(half), build_mesh({"fsdp": 8}))
    for name, value in found.items():
        np.testing.assert_allclose(value, 0.75 * params[name] + 0.25 * other[name], atol=1e-7, err_msg=name)


def test_a_merge_says_what_it_was_made_of_and_knows_itself(three, tmp_path, capsys):
    out = str(tmp_path / "m")
    merge(three, out, weights=[1, 1, 2])
    record = json.loads((tmp_path / "m" / "cptjax_export.json").read_text())
    assert record["source"] == " + ".join(three) and record["method"] == "average" and record["weights"] == [1, 1, 2]
    for made_of, lineage, path in zip(record["made_of"], record["lineages"], three, strict=True):
        assert made_of["weights"] == lineage["origin"]["identity"] == open_checkpoint(path).identity
    merge(three, out, weights=[1, 1, 2])
    assert "finished; nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="(?s)an export never overwrites.*another export"):
        merge(three, out)
    assert not [path.name for path in tmp_path.iterdir() if path.name not in ("a", "b", "c", "m")]


def test_a_dry_run_says_who_gets_what_and_writes_nothing(three, tmp_path, capsys):
    merge(three[:2], str(tmp_path / "m"), "task_arithmetic", [0.5, 2], base=three[2], dry_run=True)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[1:]] == [["base", three[2]], ["+0.5", three[0]], ["+2", three[1]]]
    assert not (tmp_path / "m").exists()


# ---- refused


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "mean"}, "METHOD = 'mean'"),
        ({"weights": [1]}, "WEIGHTS has 1 numbers, but CHECKPOINTS has 3"),
        ({"weights": [1, -1, 1]}, "none may be negative"),
        ({"weights": [0, 0, 0]}, "not all zero"),
        ({"weights": [1, float("nan"), 1]}, "WEIGHTS holds nan"),
        ({"weights": {"x": 1}}, r"WEIGHTS names \['x'\]"),
        ({"method": "linear"}, "needs FRACTION"),
        ({"fraction": 0.5}, "does not use FRACTION"),
        ({"method": "linear", "fraction": 0.5}, "takes two CHECKPOINTS"),
        ({"method": "task_arithmetic"}, "needs BASE"),
        ({"base": "x"}, "does not use BASE"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        merge(["a", "b", "c"], str(tmp_path / "m"), **settings)


def test_fractions_and_numbers_of_checkpoints(tmp_path):
    with pytest.raises(ConfigurationError, match="an arc has its ends"):
        merge(["a", "b"], str(tmp_path / "m"), "spherical", fraction=1.1)
    with pytest.raises(ConfigurationError, match="takes FRACTION and no WEIGHTS"):
        merge(["a", "b"], str(tmp_path / "m"), "linear", [1, 1], fraction=0.5)
    with pytest.raises(ConfigurationError, match="nothing to merge"):
        merge(["a"], str(tmp_path / "m"))


@pytest.mark.parametrize(
    "other, message",
    [
        ({"config": dataclasses.replace(TINY, mlp=32)}, "mlp is 24 of the first and 32"),
        ({"config": dataclasses.replace(TINY, rope_theta=5e5)}, "rope_theta is 10000.0 of the first and 500000.0"),
        ({"family": MISTRAL}, "model_type is 'llama' of the first and 'mistral'"),
    ],
)
def test_other_models_are_refused(tmp_path, other, message):
    paths = [made(tmp_path / "a", 1), made(tmp_path / "b", 2, **other)]
    with pytest.raises(ConfigurationError, match=f"different models: {message}"):
        merge(paths, str(tmp_path / "m"))


def test_other_tokenizers_are_refused(three, shared_data, tmp_path):
    shutil.copy(shared_data / "stories260K" / "tokenizer.model", tmp_path / "a" / "tokenizer.model")
    with pytest.raises(ConfigurationError, match="may have different tokenizers: .*b' has none"):
        merge(three[:2], str(tmp_path / "m"))
    shutil.copy(shared_data / "stories260K" / "tokenizer.model", tmp_path / "b" / "tokenizer.model")
    (tmp_path / "b" / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))
    with pytest.raises(ConfigurationError, match="have different tokenizers"):
        merge(three[:2], str(tmp_path / "m"))
    (tmp_path / "b" / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigurationError, match="its tokenizer has 512 pieces, its embedding 48 rows"):
        merge(three[:2], str(tmp_path / "m"))


def spoil(folder, name, value):
    file = SafetensorsFile(folder / "model.safetensors")
    tensors = {each: np.array(file.read(each)) for each in file.specs}
    tensors[name].reshape(-1)[3] = value
    specs = {each: TensorSpec(tensor.dtype, tensor.shape) for each, tensor in tensors.items()}
    write_tensors(folder, specs, iter(tensors.values()), 10**9)


def test_a_weight_that_is_not_finite_is_named_with_its_file_and_nothing_is_left(three, tmp_path):
    spoil(tmp_path / "c", "model.layers.1.mlp.up_proj.weight", np.nan)
    with pytest.raises(CptjaxError, match="c/model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight' holds"):
        merge(three, str(tmp_path / "m"))
    spoil(tmp_path / "a", "model.norm.weight", 1e38)
    with pytest.raises(CptjaxError, match="tensor 'model.norm.weight' is not finite in float16"):
        merge(three[:2], str(tmp_path / "m"), dtype="float16")
    with pytest.raises(ConfigurationError, match="'int8'"):
        merge(three[:2], str(tmp_path / "m"), dtype="int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_one_tensor_is_held_at_a_time(tmp_path):
    import tracemalloc

    config = dataclasses.replace(TINY, hidden=128, heads=4, head_dim=32, mlp=256, layers=24)
    paths = [made(tmp_path / name, seed, config) for seed, name in enumerate("abc")]
    sources = [open_checkpoint(path) for path in paths]
    total = (tmp_path / "a" / "model.safetensors").stat().st_size
    largest = 4 * 128 * 256
    tracemalloc.start()
    merging.write_merged(sources, merging.average([1, 1, 1]), tmp_path / "m", "float32", 10**9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 80 * largest and peak < 8 * largest + 1e6  # float64 blocks of three tensors, one result
