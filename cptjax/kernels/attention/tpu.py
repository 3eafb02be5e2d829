"""Our TPU kernels as one differentiable function of arrays in any length and head dimension."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.custom_batching import sequential_vmap

from cptjax.kernels.attention import backward, forward
from cptjax.kernels.attention.block_sizes import HEAD_DIM, VMEM
from cptjax.kernels.attention.plan import Plan, filled, parts_of
from cptjax.kernels.attention.residuals import LOG_SUM, RESULT
from cptjax.kernels.attention.scores import Scaling


def tpu_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    plan: Plan,
    scaling: Scaling,
    generation: str,
    sums: bool = True,
) -> tuple[jax.Array, jax.Array | None]:
    """What queries [batch, length, heads, head_dim] read from keys and values [batch, keys, kv_heads, head_dim].

    Returns it in their shape and dtype, and, if `sums`, the log of the sum of the exponentials of each query's scores,
    float32 [batch, length, heads]; gradients flow through both.
    """
    length, head_dim = query.shape[1], query.shape[3]
    queries, keys = _filled_lengths(plan)
    query, key, value = _heads_major(query, queries), _heads_major(key, keys), _heads_major(value, keys)
    out, log_sum = _attention(query, key, value, plan, scaling, VMEM[generation], sums)
    out = jnp.moveaxis(out, 1, 2)[:, :length, :, :head_dim]
    return out, jnp.moveaxis(log_sum[:, :, 0], 1, 2)[:, :length] if sums else None


def tpu_gradients(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    plan: Plan,
    cotangent: jax.Array,
    log_sum: jax.Array,
    delta: jax.Array,
    scaling: Scaling,
    generation: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients by queries, keys and values where those are a part of the keys that were read: see `ring.Local`."""
    length, keys, head_dim = query.shape[1], key.shape[1], query.shape[3]
    queries, held = _filled_lengths(plan)
    rows = (jnp.pad(jnp.moveaxis(x, 2, 1), ((0, 0), (0, 0), (0, queries - length))) for x in (log_sum, delta))
    wholes = ((scaling.scaled(query), queries), (key, held), (value, held), (cotangent, queries))
    arrays = (_heads_major(x, n) for x, n in wholes)
    found = _backward_kernel(*arrays, *(x[:, :, None] for x in rows), plan, scaling, VMEM[generation])
    return tuple(
        jnp.moveaxis(gradient, 1, 2)[:, :size, :, :head_dim]
        for gradient, size in zip(found, (length, keys, keys), strict=True)
    )


def _filled_lengths(plan: Plan) -> tuple[int, int]:
    """Queries and keys of a row, filled up to whole blocks of both passes."""
    parts = (size * parts_of(plan.keys, size) for size in (plan.sizes.resident_keys, plan.sizes.backward_resident_keys))
    return plan.intervals.first.shape[1], max(parts)


def _heads_major(array: jax.Array, length: int) -> jax.Array:
    """[batch, tokens, heads, head_dim] -> [batch, heads, length, head dimension filled up]."""
    missing = length - array.shape[1], filled(array.shape[3], HEAD_DIM) - array.shape[3]
    array = jnp.moveaxis(array, 2, 1)
    return jnp.pad(array, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1]))) if any(missing) else array


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attention(query, key, value, plan, scaling, vmem, sums):
    return _forward_kernel(scaling.scaled(query), key, value, plan, scaling, vmem, sums)


def _forward(query, key, value, plan, scaling, vmem, sums):
    query = scaling.scaled(query)
    out, log_sum = _forward_kernel(query, key, value, plan, scaling, vmem, True)
    out, log_sum = checkpoint_name(out, RESULT), checkpoint_name(log_sum, LOG_SUM)
    return (out, log_sum if sums else None), (query, key, value, plan, out, log_sum)


def _backward(scaling, vmem, sums, saved, cotangents):
    query, key, value, plan, out, log_sum = saved
    of_out, of_log_sum = cotangents
    delta = jnp.sum(out.astype(jnp.float32) * of_out.astype(jnp.float32), axis=-1)[:, :, None]
    if sums:  # the log-sum's own gradient by a score is its share: it takes the place of a part of delta
        delta = delta - of_log_sum
    of_query, of_key, of_value = _backward_kernel(query, key, value, of_out, log_sum, delta, plan, scaling, vmem)
    length = key.shape[2]
    return of_query, _cut(of_key, length), _cut(of_value, length), None


# Under vmap (runs side by side) a kernel works for one after another: Pallas has no batch of grids whose size is traced.


def _forward_kernel(query, key, value, plan, scaling, vmem, sums):
    kernel = functools.partial(forward.attention_forward, scaling=scaling, vmem=vmem, sums=sums)
    return sequential_vmap(kernel)(query, key, value, plan)


def _backward_kernel(query, key, value, cotangent, log_sum, delta, plan, scaling, vmem):
    kernel = functools.partial(backward.attention_backward, scaling=scaling, vmem=vmem)
    return sequential_vmap(kernel)(query, key, value, cotangent, log_sum, delta, plan)


def _cut(gradient: jax.Array, length: int) -> jax.Array:
    """As many keys as there were: the backward pass may cut rows into other parts than the forward pass."""
    missing = length - gradient.shape[2]
    return jnp.pad(gradient, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing > 0 else gradient[:, :, :length]


_attention.defvjp(_forward, _backward)
