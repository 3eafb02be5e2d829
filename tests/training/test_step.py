"""The train step: the same numbers on every mesh, with accumulation, and nothing non-finite let through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.source import open_checkpoint
from cptjax.models.config import DecoderConfig
from cptjax.models.model import abstract_weights, initialize, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows
from cptjax.sharding.mesh import build_mesh
from cptjax.training.optimizer import AdamW
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state, state_shardings
from cptjax.training.step import build_train_step, loss_and_gradients
from cptjax.training.update import Update

ROWS, LENGTH, STEPS = 16, 48, 20
MESHES = [{"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"replica": 2, "fsdp": 4}]
SMALL = DecoderConfig(vocabulary=96, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, tied_embeddings=True)


def random_batch(seed: int, vocabulary: int) -> dict[str, np.ndarray]:
    """Rows of three documents and some padding."""
    rng = np.random.default_rng(seed)
    segments = np.repeat([1, 2, 3, 0], [20, 17, 7, 4])
    positions = np.concatenate([np.arange(n) for n in (20, 17, 7, 4)])
    ids = rng.integers(0, vocabulary, (2, ROWS, LENGTH))
    return {
        "inputs": ids[0].astype(np.int32),
        "targets": ids[1].astype(np.int32),
        "segment_ids": np.broadcast_to(segments, (ROWS, LENGTH)).astype(np.int32),
        "positions": np.broadcast_to(positions, (ROWS, LENGTH)).astype(np.int32),
        "weights": ((segments > 0) * rng.integers(0, 2, (ROWS, LENGTH))).astype(np.float32),
    }


def on(mesh, batch):
    return place_rows(lambda rows: {name: array[rows] for name, array in batch.items()}, ROWS, mesh)


def mesh_of(sizes):
    return build_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])


def adamw(config, rate=None, **settings):
    rate = rate or compile_schedule(Schedule(1e-3, "peak", (Phase("hold"),)), 10, ROWS * LENGTH)
    return Update(AdamW().transformation(abstract_weights(config)), rate, **settings)


def losses_of(params_on, config, sizes, steps=STEPS, accumulation=1, batches=None):
    mesh = mesh_of(sizes)
    rate = compile_schedule(Schedule(1e-3, "peak", (Phase("cosine", to="peak/10"),)), STEPS, ROWS * LENGTH)
    update = adamw(config, rate)
    abstract = abstract_state(config, update, mesh)
    state = fresh_state(params_on(mesh), abstract, update)
    step = build_train_step(config, Numerics(), update, mesh, abstract, accumulation)
    losses = []
    with jax.set_mesh(mesh):
        for i in range(steps):
            batch = random_batch(i, config.vocabulary) if batches is None else batches[i]
            state, metrics = step(state, on(mesh, batch))
            losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1, "a step after the first was compiled again"
    return np.array(losses), state


def gradients_of(params_on, config, sizes):
    mesh = mesh_of(sizes)
    abstract = abstract_state(config, adamw(config), mesh)
    with jax.set_mesh(mesh):
        compute = jax.jit(
            lambda params, batch: loss_and_gradients(params, batch, config, Numerics(), 1)[2],
            out_shardings=state_shardings(abstract)["params"],
        )
        return jax.device_get(compute(params_on(mesh), on(mesh, random_batch(0, config.vocabulary))))


def assert_close_in_norm(mine, other, relative):
    for name in other:
        error = np.linalg.norm(mine[name] - other[name]) / np.linalg.norm(other[name])
        assert error < relative, f"{name}: {error:.2e}"


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_meshes_agree_on_a_real_checkpoint(sizes, shared_data):
    source = open_checkpoint(shared_data / "stories260K")
    one = {"fsdp": 1}
    assert_close_in_norm(
        gradients_of(source.load_parameters, source.config, sizes),
        gradients_of(source.load_parameters, source.config, one),
        1e-5,
    )
    expected, _ = losses_of(source.load_parameters, source.config, one)
    found, _ = losses_of(source.load_parameters, source.config, sizes)
    assert np.abs(found / expected - 1).max() < 1e-5


def small_params(mesh):
    return initialize(SMALL, 0, mesh)


@pytest.mark.parametrize("accumulation", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulation_is_the_same_step(accumulation):
    expected, state = losses_of(small_params, SMALL, {"fsdp": 2}, steps=5)
    found, accumulated = losses_of(small_params, SMALL, {"fsdp": 2}, steps=5, accumulation=accumulation)
    assert np.abs(found / expected - 1).max() < 1e-5
    assert_close_in_norm(jax.device_get(accumulated["params"]), jax.device_get(state["params"]), 1e-4)


def test_the_loss_is_divided_by_the_weight_of_the_whole_batch():
    # Half the rows carry no weight: a mean of means would halve the loss.
    batch = random_batch(0, SMALL.vocabulary)
    batch["weights"][: ROWS // 2] = 0
    expected, _ = losses_of(small_params, SMALL, {"fsdp": 1}, steps=1, batches=[batch])
    found, _ = losses_of(small_params, SMALL, {"fsdp": 8}, steps=1, batches=[batch])
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[0] == pytest.approx(np.log(SMALL.vocabulary), rel=0.05)  # random weights: nearly uniform


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bits():
    first, one = losses_of(small_params, SMALL, {"fsdp": 4, "tensor": 2}, steps=4)
    second, two = losses_of(small_params, SMALL, {"fsdp": 4, "tensor": 2}, steps=4)
    assert first.tolist() == second.tolist()
    assert all(np.array_equal(one["params"][name], two["params"][name]) for name in one["params"])


def test_a_step_that_is_not_finite_changes_nothing_but_the_counter():
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    update = adamw(SMALL)
    abstract = abstract_state(SMALL, update, mesh)
    step = build_train_step(SMALL, Numerics(), update, mesh, abstract)
    batch = random_batch(0, SMALL.vocabulary)
    state, _ = step(fresh_state(small_params(mesh), abstract, update), on(mesh, batch))
    before = jax.device_get(state)
    poisoned = {**batch, "weights": np.where(batch["weights"] > 0, np.float32(np.inf), 0).astype(np.float32)}
    state, metrics = step(state, on(mesh, poisoned))
    assert metrics["skipped"] == 1
    after = jax.device_get(state)
    assert after["step"] == before["step"] + 1
    for part in ("params", "optimizer"):
        assert jax.tree.all(jax.tree.map(np.array_equal, before[part], after[part])), part
    state, metrics = step(state, on(mesh, batch))
    assert metrics["skipped"] == 0 and np.isfinite(metrics["loss"])


def test_the_update_is_adamw_with_decay_on_matrices_alone():
    """One step against the formulas of arXiv 1711.05101, worked out in numpy."""
    config = AdamW(beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    rate = compile_schedule(Schedule(1e-2, "peak", (Phase("hold"),)), 10, ROWS * LENGTH)
    update = Update(config.transformation(abstract_weights(SMALL)), rate, clip_norm=0.5)
    abstract = abstract_state(SMALL, update, mesh)
    batch = random_batch(0, SMALL.vocabulary)
    params = jax.device_get(small_params(mesh))
    gradients = jax.device_get(
        jax.jit(lambda p, b: loss_and_gradients(p, b, SMALL, Numerics(), 1)[2])(params, on(mesh, batch))
    )
    norm = np.sqrt(sum(np.sum(np.square(g.astype(np.float64))) for g in gradients.values()))
    step = build_train_step(SMALL, Numerics(), update, mesh, abstract)
    state, metrics = step(fresh_state(small_params(mesh), abstract, update), on(mesh, batch))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    for name, before in params.items():
        gradient = gradients[name].astype(np.float64) * min(1.0, 0.5 / norm)
        decay = 0.1 * before if name.endswith((".kernel", ".table")) else 0.0
        # After one step the bias-corrected moments are the gradient and its square.
        expected = before - 1e-2 * (gradient / (np.abs(gradient) + 1e-8) + decay)
        moved = np.abs(gradient) > 1e-6  # where the quotient is well conditioned in float32
        assert np.allclose(np.asarray(state["params"][name])[moved], expected[moved], rtol=0, atol=2e-5), name
    assert jnp.issubdtype(state["step"].dtype, jnp.int32)


def compiled_step(accumulation, rows=4):
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    update = adamw(SMALL)
    abstract = abstract_state(SMALL, update, mesh)
    step = build_train_step(SMALL, Numerics(), update, mesh, abstract, accumulation)
    batch = {
        name: jax.ShapeDtypeStruct((rows * accumulation, 256), np.float32 if name == "weights" else np.int32)
        for name in ("inputs", "targets", "segment_ids", "positions", "weights")
    }
    with jax.set_mesh(mesh):
        return step.lower(abstract, batch).compile().memory_analysis()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_factor_of_accumulation():
    """Slices of the same size: what the step needs besides its batch and its state is the same for 2 as for 16 of them."""
    few, many = (compiled_step(accumulation).temp_size_in_bytes for accumulation in (2, 16))
    batch = 5 * 4 * 4 * 256 * 16  # the whole batch once more, cut into slices
    assert many < few + 2 * batch


def test_the_state_is_donated():
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    update = adamw(SMALL)
    abstract = abstract_state(SMALL, update, mesh)
    step = build_train_step(SMALL, Numerics(), update, mesh, abstract)
    before = fresh_state(small_params(mesh), abstract, update)
    step(before, on(mesh, random_batch(0, SMALL.vocabulary)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before["params"]) + jax.tree.leaves(before["optimizer"]))


def test_losses_by_source_are_those_of_their_rows():
    mesh = build_mesh({"fsdp": 2}, jax.devices()[:2])
    update = adamw(SMALL)
    abstract = abstract_state(SMALL, update, mesh)
    batch = random_batch(3, SMALL.vocabulary) | {"source": np.arange(ROWS, dtype=np.int32) % 3}
    one = build_train_step(SMALL, Numerics(), update, mesh, abstract, sources=("a", "b", "c", "none"))
    accumulated = build_train_step(SMALL, Numerics(), update, mesh, abstract, 4, sources=("a", "b", "c", "none"))
    found = [step(fresh_state(small_params(mesh), abstract, update), on(mesh, batch))[1] for step in (one, accumulated)]
    for number, name in enumerate("abc"):
        mine = {key: value for key, value in batch.items() if key != "source"}
        mine["weights"] = np.where((batch["source"] == number)[:, None], batch["weights"], 0).astype(np.float32)
        alone = build_train_step(SMALL, Numerics(), update, mesh, abstract)
        _, metrics = alone(fresh_state(small_params(mesh), abstract, update), on(mesh, mine))
        for each in found:
            assert float(each[f"loss/{name}"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)
            assert float(each[f"tokens/{name}"]) == mine["weights"].sum()
    assert all(float(each["tokens/none"]) == 0 for each in found)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_z_loss_is_trained_on_and_is_no_part_of_the_loss(accumulation):
    """Its gradient is that of the weighted mean of log(Z) ** 2, by the logits themselves; both without a z-loss and with."""
    mesh, coefficient = build_mesh({"fsdp": 1}, jax.devices()[:1]), 0.3
    params, batch = small_params(mesh), {name: jnp.asarray(x) for name, x in random_batch(5, SMALL.vocabulary).items()}

    def mean_square(params):
        scores = logits(params, SMALL, Numerics(), batch["inputs"], batch["positions"], batch["segment_ids"])
        return jnp.sum(batch["weights"] * jax.nn.logsumexp(scores, axis=-1) ** 2) / jnp.sum(batch["weights"])

    expected, of_squares = jax.jit(jax.value_and_grad(mean_square))(params)
    plain, asked = (
        jax.jit(lambda p, b, z=z: loss_and_gradients(p, b, SMALL, Numerics(), accumulation, z_loss=z))(params, batch)
        for z in (0.0, coefficient)
    )
    assert plain.z_loss is None and float(asked.z_loss) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(asked.nats, plain.nats, rtol=1e-6)
    for name, gradient in asked.gradients.items():
        whole = plain.gradients[name] + coefficient * of_squares[name]
        np.testing.assert_allclose(gradient, whole, rtol=1e-4, atol=1e-5 * float(np.abs(whole).max()), err_msg=name)
