"""Where a train step's time goes: its parts, each compiled and timed alone, against the products that it counts."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.kernels.attention import attention
from cptjax.kernels.linear_cross_entropy import linear_cross_entropy
from cptjax.models.config import DecoderConfig
from cptjax.models.flops import flops_per_token
from cptjax.models.model import abstract_weights, initialize, token_losses
from cptjax.models.numerics import Numerics
from cptjax.models.products import contract
from cptjax.sharding.mesh import build_mesh
from cptjax.training.optimizer import AdamW
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state
from cptjax.training.step import loss_and_gradients
from cptjax.training.update import Update

_SQUARES = (1024, 2048, 4096)  # the sizes of the products that the machine's peak is taken from


def step_parts(
    model: DecoderConfig, rows: float = 4, length: float = 512, repeats: float = 7, seed: int = 0
) -> dict[str, Any]:
    """Least seconds of the forward pass, of loss and gradients, of the update; and, forward and backward, of all layers'
    attention, of all layers' MLPs and of the head with its loss. What the layers' parts leave of the gradients' time is
    projections, norms and what the parts, being alone, do not pay.

    Each with `of_peak`: the share of the machine's float32 peak (the best product of square matrices, in this run) that its
    counted FLOPs reach.
    """
    rows, length, repeats = (whole_number(x, "rows, length, repeats", minimum=1) for x in (rows, length, repeats))
    rng, numerics = np.random.default_rng(seed), Numerics()
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    ids = rng.integers(0, model.vocabulary, (rows, length + 1)).astype(np.int32)
    ones = np.ones((rows, length), np.int32)
    batch = {
        "inputs": jnp.asarray(ids[:, :-1]),
        "targets": jnp.asarray(ids[:, 1:]),
        "segment_ids": jnp.asarray(ones),
        "positions": jnp.asarray(np.cumsum(ones, axis=1, dtype=np.int32) - 1),
        "weights": jnp.asarray(ones, jnp.float32),
    }

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def mlp(x, gate, up, down):
        hidden = jax.nn.silu(contract(x, gate, 1, numerics)) * contract(x, up, 1, numerics)
        return contract(hidden, down, 1, numerics)

    def attend(query, key, value):
        return attention(query, key, value, segment_ids=batch["segment_ids"])

    def head(x, kernel):
        return linear_cross_entropy(x, kernel, batch["targets"]).nats

    # --- The parts: (what is timed, its arguments, how often a step does it, its FLOPs in a step) ---
    x = draw(rows, length, model.hidden)
    wide = (model.hidden, model.mlp)
    keys = (rows, length, model.kv_heads, model.head_dim)
    counted = flops_per_token(model, length)
    tokens = rows * length
    rate = compile_schedule(Schedule(1e-4, "peak", (Phase("hold"),)), 1000, tokens)
    update = Update(AdamW().transformation(abstract_weights(model)), rate)
    with jax.set_mesh(mesh):
        params = initialize(model, seed, mesh)
        state = fresh_state(params, abstract_state(model, update, mesh), update)
        parts = {
            "forward": (lambda p: token_losses(p, model, numerics, batch), (params,), 1, counted.forward),
            "gradients": (lambda p: loss_and_gradients(p, batch, model, numerics, 1), (params,), 1, counted.training),
            "update": (lambda s, g: update.apply(s, jnp.float32(1), g)[:2], (state, params), 1, None),
            "attention": (
                _with_gradients(attend),
                (draw(rows, length, model.heads, model.head_dim), draw(*keys), draw(*keys)),
                model.layers,
                3 * counted.attention,
            ),
            "mlp": (
                _with_gradients(mlp),
                (x, draw(*wide), draw(*wide), draw(*wide[::-1])),
                model.layers,
                3 * counted.mlp,
            ),
            "head": (_with_gradients(head), (x, draw(model.hidden, model.vocabulary) * 0.02), 1, 3 * counted.head),
        }
        peak = max(
            2 * size**3 / _least_seconds(lambda a: contract(a, a, 1, numerics), (draw(size, size),), repeats)
            for size in _SQUARES
        )
        found: dict[str, Any] = {"batch": f"{rows} x {length}", "peak_gflops_per_second": peak / 1e9}
        for name, (function, arguments, times, flops) in parts.items():
            seconds = times * _least_seconds(function, arguments, repeats)
            found[f"{name}_seconds"] = seconds
            if flops is not None:
                found[f"{name}_of_peak"] = flops * tokens / seconds / peak
    return found


def _with_gradients(function: Callable) -> Callable:
    """`function`'s gradients with respect to all that it is given."""

    def gradients(*arguments):
        return jax.grad(lambda *given: jnp.sum(function(*given)), argnums=tuple(range(len(arguments))))(*arguments)

    return gradients


def _least_seconds(function: Callable, arguments: tuple, repeats: int) -> float:
    """The quickest of `repeats` calls, after one that compiles."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
