"""The command `merge`: what it writes loads in `transformers` and holds what numpy makes by hand."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from commands import run_main

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.safetensors import SafetensorsFile, TensorSpec
from cptjax.checkpoints.safetensors_writing import write_tensors
from cptjax.errors import ConfigurationError
from cptjax.jobs.convert import convert
from cptjax.jobs.export import export
from cptjax.jobs.merge import merge
from cptjax.models.families.llama import LLAMA
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

pytestmark = pytest.mark.slow


def other_weights(source, folder):
    """The checkpoint at `source` with other weights."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors").chmod(0o644)
    file, rng = SafetensorsFile(source / "model.safetensors"), np.random.default_rng(0)
    tensors = {name: file.read(name) + 0.1 * rng.standard_normal(spec.shape) for name, spec in file.specs.items()}
    specs = {name: TensorSpec(np.dtype(np.float32), tensor.shape) for name, tensor in tensors.items()}
    write_tensors(folder, specs, (tensor.astype(np.float32) for tensor in tensors.values()), 10**9)
    return folder


def test_a_merge_of_a_run_and_a_folder_loads_in_transformers(shared_data, tmp_path):
    transformers = pytest.importorskip("transformers")
    base, run, out = shared_data / "stories260K", tmp_path / "run", tmp_path / "merged"
    other = other_weights(base, tmp_path / "other")
    run_main("gin/jobs/convert.gin", f"HF_CHECKPOINT='{other}'", f"OUTPUT_DIR='{run}'")
    settings = ["gin/jobs/merge.gin", f"CHECKPOINTS=['{base}', '{run}']", f"OUTPUT_DIR='{out}'"]
    given = [*settings, "METHOD='linear'", "FRACTION=0.25"]
    assert f"0.25       {run}, step 0" in run_main(*given, "--dry_run")
    assert not out.exists()
    assert f"wrote {out}" in run_main(*given)
    assert "finished; nothing to do" in run_main(*given)
    assert "an export never overwrites" in run_main(*settings, code=2)
    first, second = (SafetensorsFile(folder / "model.safetensors") for folder in (base, other))
    merged = transformers.AutoModelForCausalLM.from_pretrained(out).state_dict()
    for name in first.specs:
        expected = 0.75 * first.read(name).astype(np.float64) + 0.25 * second.read(name)
        np.testing.assert_allclose(merged[name].float().numpy(), expected, atol=1e-6, err_msg=name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer("Once upon a time")["input_ids"] == [1, 403, 407, 261, 378]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"checkpoints": "/data/x"}, "CHECKPOINTS = '/data/x'; it is a list of paths"),
        ({"checkpoints": ["a", "b"], "weights": 0.5}, "WEIGHTS = 0.5; it is a list of numbers"),
        ({"checkpoints": ["a", "b"], "dtype": "float8", "dry_run": True}, "cannot be exported as 'float8'"),
    ],
)
def test_settings_of_another_kind_are_refused(given, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        merge(output_dir=str(tmp_path / "out"), **given)


def test_a_tokenizer_with_more_ids_than_rows_is_refused_on_the_way_in_and_out(shared_data, tmp_path):
    base = shared_data / "stories260K"
    config = dataclasses.replace(open_folder(base).decoder_config, vocabulary=500)
    params = initialize(config, 0, build_mesh({"fsdp": 1}, jax.devices()[:1]))
    export_folder(params, config, LLAMA, None, base, tmp_path / "short")
    short, out = str(tmp_path / "short"), str(tmp_path / "out")
    for job in (lambda: convert(short, out), lambda: export(short, out), lambda: merge([short, short], out)):
        with pytest.raises(ConfigurationError, match="its tokenizer has 512 pieces, its embedding 500 rows"):
            job()
    assert not (tmp_path / "out").exists()
