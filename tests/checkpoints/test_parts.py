"""Parts of tensors as our weights: the values that the whole tensor gives, read from no more rows than hold them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.parts import aligned, read_parts, rows_of, shape_of, spec_by_rows
from cptjax.errors import CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import correspondences, first_parts
from cptjax.models.families.gpt2 import GPT_2
from cptjax.models.families.gpt_neox import GPT_NEOX
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.phi3 import PHI_3
from cptjax.models.model import abstract_weights

SIZES = {"vocabulary": 12, "hidden": 8, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 2, "mlp": 6}
LAYER_NORM = {"norm": "layer", "gated_mlp": False, "mlp_bias": True, "query_key_value_bias": True, "output_bias": True}
MODELS = {
    "llama": (LLAMA, DecoderConfig(**SIZES)),
    "phi3": (PHI_3, DecoderConfig(**SIZES)),
    "gpt_neox": (GPT_NEOX, DecoderConfig(**(SIZES | {"kv_heads": 4}), **LAYER_NORM, activation="gelu")),
    "gpt2": (
        GPT_2,
        DecoderConfig(
            **(SIZES | {"kv_heads": 4}), **LAYER_NORM, activation="gelu_tanh", positions="learned", tied_embeddings=True
        ),
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    random = np.random.default_rng(0)
    made = {}
    for name, (family, config) in MODELS.items():
        path = tmp_path_factory.mktemp("parts") / name
        params = {
            name: random.standard_normal(spec.shape, np.float32) for name, spec in abstract_weights(config).items()
        }
        export_folder(params, config, family, None, None, path)
        made[name] = open_folder(path)
    return made


@st.composite
def cuts(draw):
    """A tensor of one of the models, and of each of our weights in it the part that a device might hold."""
    family, config = MODELS[model := draw(st.sampled_from(sorted(MODELS)))]
    entries = correspondences(family, config)
    theirs, first, _ = draw(st.sampled_from(first_parts(entries)))
    wanted = {}
    for name in first.together:
        index = []
        for size in entries[name].shape:
            ways = draw(st.sampled_from([ways for ways in (1, 2, 3, 4) if size % ways == 0]))
            which = draw(st.integers(0, ways - 1))
            index.append(slice(None) if ways == 1 else slice(which * size // ways, (which + 1) * size // ways))
        wanted[name] = (entries[name], [tuple(index)])
    return model, theirs, wanted


def rows_by_hand(entry, index):
    """The rows of their tensor in which a value of the part stands."""
    shape = entry.their_shape
    numbers = np.arange(int(np.prod(shape))).reshape(shape) // int(np.prod(shape[1:]))
    return set(entry.to_ours(numbers)[index].reshape(-1).tolist())


@given(cuts())
def test_rows_are_those_between_the_first_and_the_last_that_are_needed(cut):
    for entry, indices in cut[2].values():
        rows = rows_by_hand(entry, indices[0])
        assert rows_of(entry, indices[0]) == (min(rows), max(rows) + 1)


@settings(max_examples=150)
@given(cut=cuts(), mapped=st.booleans())
def test_parts_are_cut_from_the_whole_and_other_rows_are_not_read(folders, cut, mapped):
    model, theirs, wanted = cut
    file = open_folder(folders[model].path).tensors[theirs]
    whole = np.array(file.read(theirs))
    needed = set().union(*(range(*rows_of(entry, indices[0])) for entry, indices in wanted.values()))
    asked = set()
    if not mapped:  # as if it were not a local file: ranges of bytes are read
        file._mapped, read = None, file.read
        file.read = lambda name, rows=slice(None): asked.update(range(len(whole))[rows]) or read(name, rows)
    found = {name: [aligned(shape_of(indices[0], entry.shape))] for name, (entry, indices) in wanted.items()}
    read_parts(file, theirs, wanted, found)
    assert mapped or asked == needed
    for name, (entry, indices) in wanted.items():
        assert found[name][0].dtype == np.float32 and found[name][0].ctypes.data % 64 == 0
        np.testing.assert_array_equal(found[name][0], entry.to_ours(whole)[indices[0]])


def test_what_others_hold_may_be_broken_and_what_is_ours_may_not(folders, tmp_path):
    """Two devices' parts of one tensor, NaN in the second: whoever holds the first does not see it."""
    name = "model.layers.1.mlp.up_proj.weight"
    entry = correspondences(*MODELS["llama"])["layers.mlp.up.kernel"]
    file = folders["llama"].tensors[name]
    start = file._data + file._offsets[name][0]
    content = bytearray(file.path.read_bytes())
    content[start + 4 * 8 * 4 : start + 4 * 8 * 4 + 4] = np.float32(np.nan).tobytes()  # row 4 of 6, column 0
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_bytes((folders["llama"].path / "config.json").read_bytes())
    file = open_folder(tmp_path).tensors[name]
    for part in ((slice(None), slice(0, 3)), (slice(4, 8), slice(None))):  # rows 0-2; columns 4-7
        read_parts(file, name, {"up": (entry, [part])}, {"up": [aligned(shape_of(part, entry.shape))]})
    with pytest.raises(CptjaxError, match=f"model.safetensors: tensor '{name}' holds values that are not finite"):
        read_parts(
            file,
            name,
            {"up": (entry, [(slice(None), slice(0, 3)), (slice(None), slice(3, 6))])},
            {"up": [aligned((8, 3)), aligned((8, 3))]},
        )


def test_processes_read_rows_whatever_axis_is_cut():
    mesh = {"replica": 2, "fsdp": 2, "context": 1, "tensor": 2}
    entries = correspondences(*MODELS["llama"])
    up, output = entries["layers.mlp.up.kernel"], entries["layers.attention.output.kernel"]
    # ours [hidden, mlp], theirs [mlp, hidden]: 6 rows are not shared evenly by 4
    assert spec_by_rows(up, mesh, PartitionSpec("fsdp", None), up.shape) == PartitionSpec(None, ("fsdp",))
    assert spec_by_rows(up, mesh, PartitionSpec("fsdp", "tensor"), up.shape) == PartitionSpec("fsdp", "tensor")
    assert spec_by_rows(up, mesh, PartitionSpec(None, "tensor"), up.shape) == PartitionSpec(None, "tensor")
    # ours [heads, head_dim, hidden], theirs [hidden, heads * head_dim]
    both = PartitionSpec(None, None, ("fsdp", "tensor"))
    assert spec_by_rows(output, mesh, PartitionSpec("tensor", None, "fsdp"), output.shape) == both
    assert spec_by_rows(output, mesh, PartitionSpec(), output.shape) == PartitionSpec()
