"""From gradients to the next state: every optimizer learns; frozen weights, averages and refused steps keep their bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cptjax.models.config import DecoderConfig
from cptjax.models.model import abstract_weights, initialize
from cptjax.sharding.mesh import build_mesh
from cptjax.training.freezing import Freeze, thaw_steps
from cptjax.training.guard import Guard
from cptjax.training.optimizer import Adafactor, AdamW, Lion, Muon
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state, state_shardings
from cptjax.training.update import Update

SMALL = DecoderConfig(vocabulary=24, hidden=16, layers=3, heads=4, kv_heads=2, head_dim=4, mlp=24)
WEIGHTS = abstract_weights(SMALL)
STEPS = 12


def mesh(devices=1):
    return build_mesh({"fsdp": devices}, jax.devices()[:devices])


def rate(peak=1e-2):
    return compile_schedule(Schedule(peak, "peak", (Phase("hold"),)), STEPS, 64)


def gradients_at(params, step):
    """The gradient of a bowl, with some noise: 0.5 |p - target|^2."""
    keys = jax.random.split(jax.random.key(step), len(params))
    return {
        name: p - 0.3 + 0.01 * jax.random.normal(key, p.shape)
        for (name, p), key in zip(sorted(params.items()), keys, strict=True)
    }


def trained(update, steps=STEPS, devices=1, losses=None):
    on = mesh(devices)
    abstract = abstract_state(SMALL, update, on)
    state = fresh_state(initialize(SMALL, 0, on), abstract, update)
    states = [jax.device_get(state)]
    apply = jax.jit(
        lambda state, loss: update.apply(state, loss, gradients_at(state["params"], state["step"]))[0],
        out_shardings=state_shardings(abstract),
    )
    for step in range(steps):
        state = apply(state, jnp.float32(1.0 if losses is None else losses[step]))
        states.append(jax.device_get(state))
    assert apply._cache_size() == 1
    return states


def distance(state):
    return np.sqrt(sum(np.sum(np.square(p - 0.3)) for p in state["params"].values()))


OPTIMIZERS = [
    AdamW(weight_decay=0.0),
    AdamW(weight_decay=0.0, moments="bfloat16"),
    Lion(weight_decay=0.0),
    Adafactor(weight_decay=0.0),
    pytest.param(Adafactor(weight_decay=0.0, scale_by_weight=True), marks=pytest.mark.slow),
    Muon(weight_decay=0.0),
    pytest.param(Muon(weight_decay=0.0, moments="bfloat16"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_every_optimizer_goes_down_the_bowl_the_same_on_eight_devices(optimizer):
    update = Update(optimizer.transformation(WEIGHTS), rate(), clip_norm=None)
    states = trained(update)
    falling = [distance(state) for state in states]
    assert falling[-1] < falling[0] and all(np.isfinite(falling))
    spread = trained(update, devices=8)
    loose = 3e-2 if getattr(optimizer, "moments", "") == "bfloat16" else 1e-3  # Newton-Schulz amplifies rounding
    for name, p in states[-1]["params"].items():
        assert np.abs(p - spread[-1]["params"][name]).max() < loose, name


def test_moments_are_kept_in_the_dtype_that_is_asked_for():
    for optimizer in (AdamW(moments="bfloat16"), Lion(moments="bfloat16"), Muon(moments="bfloat16")):
        update = Update(optimizer.transformation(WEIGHTS), rate())
        abstract = abstract_state(SMALL, update, mesh())
        moments = [leaf for leaf in jax.tree.leaves(abstract["optimizer"]) if leaf.ndim > 1]
        assert moments and all(leaf.dtype == jnp.bfloat16 for leaf in moments)
        own = [
            leaf
            for path, leaf in jax.tree_util.tree_flatten_with_path(abstract["optimizer"])[0]
            if "ns_coeffs" in jax.tree_util.keystr(path)
        ]
        assert len(own) == isinstance(optimizer, Muon) and all(leaf.dtype == jnp.float32 for leaf in own)
        assert all(leaf.dtype == jnp.float32 for leaf in abstract["params"].values())


def test_adamw_in_bfloat16_is_near_adamw():
    whole, half = (
        trained(Update(AdamW(moments=dtype).transformation(WEIGHTS), rate())) for dtype in ("float32", "bfloat16")
    )
    assert distance(half[-1]) == pytest.approx(distance(whole[-1]), rel=2e-2)


def test_adafactor_factors_each_layer_by_itself():
    """A stack of three layers takes the steps that each layer would take alone."""
    optimizer = Adafactor(weight_decay=0.0)
    inner = optax.chain(optax.scale_by_factored_rms(decay_rate=0.8), optax.clip_by_block_rms(1.0))
    name = "layers.attention.query.kernel"  # [layers, hidden, heads, head_dim]
    params = jax.device_get(initialize(SMALL, 0, mesh()))
    gradient = {key: np.random.default_rng(0).normal(size=p.shape).astype(np.float32) for key, p in params.items()}
    transformation = optimizer.transformation(WEIGHTS)
    updates, _ = transformation.update(gradient, transformation.init(params), params)
    for layer in range(3):
        p, g = params[name][layer].reshape(16, 16), gradient[name][layer].reshape(16, 16)
        alone, _ = inner.update(g, inner.init(p), p)
        assert np.allclose(updates[name][layer].reshape(16, 16), alone, rtol=1e-5)


def test_muon_makes_every_layers_matrix_orthogonal_and_adamw_serves_the_rest():
    muon, adamw = Muon(weight_decay=0.0, rms=0.2), AdamW(weight_decay=0.0)
    params = jax.device_get(initialize(SMALL, 0, mesh()))
    gradient = {key: np.random.default_rng(1).normal(size=p.shape).astype(np.float32) for key, p in params.items()}
    updates, others = (
        each.update(gradient, each.init(params), params)[0]
        for each in (optimizer.transformation(WEIGHTS) for optimizer in (muon, adamw))
    )
    for name, shape in {"layers.mlp.up.kernel": (16, 24), "layers.attention.output.kernel": (16, 16)}.items():
        for layer in range(3):
            singular = np.linalg.svd(np.asarray(updates[name][layer]).reshape(shape), compute_uv=False)
            assert np.all(np.abs(singular / (0.2 * np.sqrt(max(shape))) - 1) < 0.5), name  # 5 steps: within [0.5, 1.5]
    for name in ("embedding.table", "head.kernel", "final_norm.scale", "layers.mlp_norm.scale"):
        assert np.allclose(updates[name], others[name], rtol=1e-6), name


@pytest.mark.parametrize("optimizer", [Adafactor(weight_decay=0.0), Muon(weight_decay=0.0)], ids=["Adafactor", "Muon"])
def test_every_expert_takes_the_step_that_it_would_take_in_a_model_of_one(optimizer):
    alone = dataclasses.replace(SMALL, layers=1, experts=1, experts_per_token=1, expert_mlp=12)
    several = dataclasses.replace(alone, layers=2, experts=3)
    name = "layers.mlp.experts.down.kernel"

    def change(config, values):
        transformation = optimizer.transformation(abstract_weights(config))
        zeros = {key: jnp.zeros(spec.shape) for key, spec in abstract_weights(config).items()}
        params, gradients = (zeros | {name: value} for value in values)
        return transformation.update(gradients, transformation.init(params), params)[0][name]

    values = np.random.default_rng(0).normal(size=(2, 2, 3, 12, 16)).astype(np.float32)
    found = change(several, values)
    for layer, expert in ((0, 0), (1, 2)):
        one = change(alone, values[:, layer : layer + 1, expert : expert + 1])
        assert np.allclose(found[layer, expert], one[0, 0], rtol=1e-4, atol=1e-6)


def frozen(*freezes):
    return thaw_steps(freezes, WEIGHTS, STEPS, 64)


@pytest.mark.parametrize("optimizer", [AdamW(), Muon(), Adafactor(), Lion()], ids=lambda each: type(each).__name__)
def test_frozen_weights_keep_their_bits_until_they_are_thawed(optimizer):
    thaw = frozen(Freeze("embedding.table"), Freeze("layers.*", layers=(0, 2), until="6 steps"))
    states = trained(Update(optimizer.transformation(WEIGHTS), rate(), thaw=thaw))
    first = states[0]["params"]
    for done, state in enumerate(states):
        assert state["params"]["embedding.table"].tobytes() == first["embedding.table"].tobytes()
        kernel = state["params"]["layers.mlp.up.kernel"]
        assert (kernel[:2].tobytes() == first["layers.mlp.up.kernel"][:2].tobytes()) == (done <= 6)
        assert (kernel[2].tobytes() == first["layers.mlp.up.kernel"][2].tobytes()) == (done == 0)


def test_what_is_not_finite_in_weights_that_wait_is_refused_and_reaches_no_moment():
    update = Update(AdamW().transformation(WEIGHTS), rate(), thaw=frozen(Freeze("layers.*", until="6 steps")))
    state = fresh_state(initialize(SMALL, 0, mesh()), abstract_state(SMALL, update, mesh()), update)
    apply = jax.jit(lambda state, gradients: update.apply(state, jnp.float32(1), gradients)[:2])
    for step in range(8):
        gradients = gradients_at(state["params"], step)
        if step == 2:
            gradients["layers.mlp.up.kernel"] = jnp.full_like(gradients["layers.mlp.up.kernel"], np.nan)
        state, metrics = apply(state, gradients)
        assert bool(metrics["skipped"]) == (step == 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_weights_that_wait_are_clipped_by_their_own_norm():
    thaw = frozen(Freeze("layers.*", until="6 steps"))
    update = Update(optax.trace(0.0), rate(), clip_norm=1e-3, thaw=thaw)
    state = trained(update, steps=1)[1]["optimizer"]
    (trace,) = [state.trace]
    for waiting in (True, False):
        values = [x for name, x in trace.items() if name.startswith("layers.") == waiting]
        assert np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in values)) == pytest.approx(1e-3, rel=1e-3)


def test_weights_that_are_never_trained_have_no_moments():
    update = Update(AdamW().transformation(WEIGHTS), rate(), thaw=frozen(Freeze("embedding.table")))
    names = jax.tree_util.tree_flatten_with_path(abstract_state(SMALL, update, mesh())["optimizer"])[0]
    assert names and not any("embedding" in jax.tree_util.keystr(path) for path, _ in names)


def test_the_norm_that_is_clipped_is_of_the_weights_that_are_trained():
    thaw = frozen(Freeze("embedding.table"))
    update = Update(optax.identity(), rate(1.0), clip_norm=1e-3, thaw=thaw)
    before, after = trained(update, steps=1)
    moved = {name: after["params"][name] - p for name, p in before["params"].items()}
    assert np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in moved.values())) == pytest.approx(1e-3, rel=1e-3)


def test_a_refused_step_changes_nothing_but_the_counter_and_what_the_guard_remembers():
    update = Update(AdamW().transformation(WEIGHTS), rate(), guard=Guard(window=4), average=0.9)
    losses = [1.0, 1.1, 0.9, 1.0, 50.0, np.nan, 1.0, 1.0]
    states = trained(update, steps=8, losses=losses)
    for step in (4, 5):
        before, after = states[step], states[step + 1]
        assert after["step"] == before["step"] + 1
        for part in ("params", "optimizer", "average"):
            assert jax.tree.all(jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), before[part], after[part])), part
    assert distance(states[7]) < distance(states[6])


def test_the_average_is_exponential():
    states = trained(Update(AdamW().transformation(WEIGHTS), rate(), average=0.75))
    name, expected = "head.kernel", None
    for state in states:
        p = state["params"][name].astype(np.float64)
        expected = p if expected is None else 0.75 * expected + 0.25 * p
        assert np.allclose(state["average"][name], expected, atol=1e-6)


def test_a_learning_rate_of_zero_gathers_moments_and_moves_nothing():
    phases = (Phase("hold"),)
    schedule = compile_schedule(Schedule(1e-2, "peak", phases, rebuild_moments="5 steps"), STEPS, 64)
    states = trained(Update(AdamW().transformation(WEIGHTS), schedule))
    for state in states[:6]:
        assert all(np.array_equal(p, states[0]["params"][name]) for name, p in state["params"].items())
    moments = [leaf for leaf in jax.tree.leaves(states[5]["optimizer"]) if leaf.ndim > 1]
    assert all(np.abs(moment).max() > 0 for moment in moments)
    assert distance(states[6]) < distance(states[5])
