"""What is saved comes back bit for bit, and nothing half-written or altered is ever taken for a checkpoint."""

import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cptjax.checkpoints.store import CheckpointStore
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.sharding.mesh import build_mesh

METADATA = {"lineage": {"version": 1}, "note": "naïve ☃"}


def make_state(mesh, optimizer=None):
    """A state as training has it, cut over `mesh`; bfloat16, NaN payloads, -0.0 and subnormal numbers included."""
    cut, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())
    odd = np.arange(64, dtype=np.uint32) * 0x04000001  # every 64th bit pattern: NaNs, infinities, subnormals
    odd[:4] = [0x80000000, 0x7FC00001, 0xFFFFFFFF, 0x00000001]
    params = {
        "embedding.table": jax.device_put(jax.random.normal(jax.random.key(0), (64, 16)), cut),
        "layers.mlp.up.kernel": jax.device_put(jax.random.normal(jax.random.key(1), (2, 16, 8)), whole),
        "odd": jax.device_put(odd.view(np.float32), cut),
        "half": jax.device_put(jax.random.normal(jax.random.key(2), (8, 3)).astype(jnp.bfloat16), cut),
    }
    optimizer = optimizer or optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-3, mask=lambda p: {k: True for k in p})
    )
    return {"step": jax.device_put(jnp.int32(7), whole), "params": params, "optimizer": optimizer.init(params)}


def abstract(state, mesh=None):
    """The state as shapes, dtypes and shardings; on another mesh the first axis is cut over `tensor`."""

    def shape(x):
        if mesh is None:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        spec = PartitionSpec("tensor") if x.ndim and x.shape[0] % mesh.shape["tensor"] == 0 else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(shape, state)


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def mesh():
    return build_mesh({"fsdp": 8})


@pytest.fixture(scope="module")
def state(mesh):
    return make_state(mesh)


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    yield store
    store.close()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, state):
    """A directory with steps 10 and 20, saved once; tests copy it before they damage it."""
    directory = tmp_path_factory.mktemp("pristine") / "checkpoints"
    store = CheckpointStore(directory)
    store.save(10, state, METADATA)
    store.save(20, state, METADATA)
    store.close()
    return directory


@pytest.fixture
def saved(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "copy")
    return CheckpointStore(tmp_path / "copy")


def test_a_state_comes_back_bit_for_bit_with_its_types_and_places(store, state):
    assert store.save(7, state, METADATA)
    store.wait()
    restored = store.restore(7, abstract(state))
    assert_same_bits(restored, state)
    for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
    assert store.metadata(7) == METADATA


@pytest.mark.parametrize("sizes", [{"fsdp": 4, "tensor": 2}, {"replica": 2, "fsdp": 4}, {"tensor": 8}])
def test_it_comes_back_on_another_mesh_bit_for_bit(saved, state, sizes):
    other = abstract(state, build_mesh(sizes))
    restored = saved.restore(10, other)
    assert_same_bits(restored, state)
    for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(other), strict=True):
        assert x.sharding == y.sharding


def test_it_comes_back_on_one_device(saved, state):
    one = build_mesh({"fsdp": 1}, jax.devices()[:1])
    assert_same_bits(saved.restore(10, abstract(state, one)), state)


def test_parameters_alone(saved, state):
    restored = saved.restore_parameters(20, abstract(state["params"]))
    assert_same_bits(restored, state["params"])


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"replica": 8}])
def test_arrays_may_be_donated_as_soon_as_save_returns(store, sizes):
    mesh = build_mesh(sizes)
    sharding = NamedSharding(mesh, PartitionSpec("fsdp"))
    live = {"w": jax.jit(lambda: jax.random.normal(jax.random.key(3), (1024, 1024)), out_shardings=sharding)()}
    expected = np.array(live["w"], copy=True)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    shapes = abstract(live)
    store.save(1, live, {})
    for _ in range(3):
        live = overwrite(live)
    jax.block_until_ready(live)
    store.wait()
    assert np.asarray(store.restore(1, shapes)["w"]).tobytes() == expected.tobytes()


def test_the_metadata_is_taken_when_save_is_called(store, state):
    metadata = {"tokens": [1]}
    store.save(1, state, metadata)
    metadata["tokens"].append(2)
    store.wait()
    assert store.metadata(1) == {"tokens": [1]}


def test_metadata_that_is_not_json_is_refused_at_once(store, state):
    with pytest.raises(TypeError):
        store.save(1, state, {"x": object()})
    assert store.steps() == []


def test_the_newest_are_kept(store, state):
    for step in (1, 2, 3, 1000000000):
        store.save(step, state, {})
    store.wait()
    assert store.steps() == [3, 1000000000] and store.latest() == 1000000000
    assert sorted(p.name for p in store.directory.iterdir()) == ["000000003", "1000000000"]


def test_a_step_that_is_already_there_is_left_alone(saved, state):
    before = (saved.path_of(20) / "digests.json").read_bytes()
    assert saved.save(20, state, {"other": True}) is False
    assert (saved.path_of(20) / "digests.json").read_bytes() == before


def test_an_empty_store_says_so(tmp_path, state):
    store = CheckpointStore(tmp_path / "nothing")
    assert store.steps() == [] and store.latest() is None
    with pytest.raises(CptjaxError, match="no checkpoint of step 5 in .*nothing.\n  Steps it holds: none."):
        store.restore(5, abstract(state))
    assert not (tmp_path / "nothing").exists()


def test_keeping_none_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="keep = 0"):
        CheckpointStore(tmp_path, keep=0)


def test_a_half_written_step_is_named_ignored_and_written_anew(saved, state, caplog):
    (saved.path_of(20) / "digests.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert saved.steps() == [10]
        assert saved.latest() == 10
    assert [record.getMessage() for record in caplog.records] == [
        f"ignoring {saved.path_of(20)}: its saving was never finished (no digests.json)"
    ]
    assert saved.save(20, state, {"again": 1})
    saved.wait()
    assert saved.steps() == [10, 20] and saved.metadata(20) == {"again": 1}
    assert_same_bits(saved.restore(20, abstract(state)), state)
    saved.close()


def test_what_a_kill_left_of_any_step_goes_with_the_next_save(saved, state):
    (saved.directory / "000000015" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    (saved.path_of(10) / "digests.json").rename(saved.path_of(10) / "removing")  # killed while removing a step
    assert saved.steps() == [20]
    saved.save(30, state, {})
    saved.close()
    assert sorted(p.name for p in saved.directory.iterdir()) == ["000000020", "000000030"]


def every_file(directory, step):
    folder = directory / f"{step:09d}"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_flipped_bit_in_any_file_is_found_by_name_and_an_intact_step_is_offered(pristine, saved, state):
    wanted = abstract(state)
    for name in every_file(pristine, 20):
        path = saved.path_of(20) / name
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 0x10
        path.write_bytes(bytes(flipped))
        with pytest.raises(CptjaxError) as caught:
            saved.restore(20, wanted)
        message = str(caught.value)
        assert "checkpoint of step 20 is damaged" in message and "Step 10 is intact" in message
        assert str(saved.path_of(20)) in message
        if name != "digests.json":  # a flip within it may surface as another file's: either way nothing is restored
            assert name in message
        path.write_bytes(content)
    assert_same_bits(saved.restore(20, wanted), state)


def test_a_truncated_or_missing_file_is_found_by_name(pristine, saved, state):
    for name in [n for n in every_file(pristine, 20) if n != "digests.json"]:
        path = saved.path_of(20) / name
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(CptjaxError, match=f"{len(content) - 1} bytes; {len(content)} were written"):
            saved.restore(20, abstract(state))
        path.unlink()
        with pytest.raises(CptjaxError, match="is missing"):
            saved.restore(20, abstract(state))
        path.write_bytes(content)


def test_damage_everywhere_says_that_nothing_is_intact(saved, state):
    for step in (10, 20):
        (saved.path_of(step) / "metadata.json").write_text("{}")
    with pytest.raises(CptjaxError, match="No older step is intact"):
        saved.restore(20, abstract(state))
    with pytest.raises(CptjaxError, match="metadata.json has 2 bytes"):
        saved.metadata(20)


def test_other_arrays_than_were_saved_are_refused_by_name(saved, state, mesh):
    other = abstract(make_state(mesh, optax.sgd(1e-3, momentum=0.9)))
    with pytest.raises(ConfigurationError, match="it lacks: optimizer.0.trace.embedding.table") as caught:
        saved.restore(20, other)
    assert "it has besides: optimizer.1.0.count" in str(caught.value)

    whole = NamedSharding(mesh, PartitionSpec())
    larger = {**abstract(state["params"]), "odd": jax.ShapeDtypeStruct((65,), jnp.float32, sharding=whole)}
    with pytest.raises(ConfigurationError, match=r"params.odd is float32\[64\], not float32\[65\]"):
        saved.restore_parameters(20, larger)
    cast = {**abstract(state["params"]), "half": jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=whole)}
    with pytest.raises(ConfigurationError, match=r"params.half is bfloat16\[8, 3\], not float32\[8, 3\]"):
        saved.restore_parameters(20, cast)


def test_two_leaves_with_one_dotted_name_are_refused(store):
    with pytest.raises(ValueError, match="both called 'params.a.b'"):
        store.save(1, {"params": {"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}}}, {})


def test_names_shapes_and_dtypes_are_written_for_other_readers(saved):
    content = json.loads((saved.path_of(20) / "metadata.json").read_text())
    assert content["step"] == 20
    assert content["arrays"]["params.embedding.table"] == {"shape": [64, 16], "dtype": "float32"}
    assert content["arrays"]["optimizer.1.0.mu.half"] == {"shape": [8, 3], "dtype": "bfloat16"}
