"""The forward pass in Pallas for TPU: online softmax over the blocks that a plan visits (arXiv 2205.14135, 2307.08691)."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from cptjax.kernels.attention.block_sizes import LANES, vmem_asked
from cptjax.kernels.attention.plan import Plan, Work, filled
from cptjax.kernels.attention.scores import HIDDEN, LOWEST, Scaling, across, product


def attention_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, plan: Plan, scaling: Scaling, vmem: int, sums: bool
) -> tuple[jax.Array, jax.Array | None]:
    """What queries [batch, heads, length, head_dim] read from keys and values [batch, kv_heads, keys, head_dim].

    Lengths are filled up to the plan's blocks. Returns it in the dtype of `query`, and, if `sums`, the log of the sum of
    the exponentials of each query's scores, float32 [batch, heads, 1, length].

    Args:
        query: scaled (`Scaling.scaled`).
        vmem: bytes of VMEM that the kernel may take.
    """
    batch, heads, length, head_dim = query.shape
    group = heads // key.shape[1]
    sizes, steps, at = plan.sizes, plan.forward, plan.forward.at

    def of_queries(head, step, place, _):
        row, queries, _ = at.of(place[step])
        return row, head, queries, 0

    def of_keys(head, step, place, _):
        row, _, part = at.of(place[step])
        return row, head // group, part, 0

    def of_rows(head, step, place, _):
        row, queries, _ = at.of(place[step])
        return row, 0, queries

    def of_sums(head, step, place, _):
        row, queries, _ = at.of(place[step])
        return row, head, 0, queries

    block, held = (1, 1, sizes.queries, head_dim), (1, 1, sizes.resident_keys, head_dim)
    interval = pl.BlockSpec((1, 1, sizes.queries), of_rows)
    column = pltpu.VMEM((sizes.queries, LANES), jnp.float32)
    places = pltpu.VMEM((sizes.queries, LANES), jnp.int32)
    item, row = query.dtype.itemsize, filled(head_dim, LANES)
    asked = vmem_asked(
        held=sizes.queries * (row + 4 * LANES) * 4,
        passing=2 * (sizes.resident_keys + sizes.queries) * row * item,
        scores=4 * sizes.queries * sizes.keys,
        most=vmem,
    )
    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(heads, steps.count[0]),
        in_specs=[pl.BlockSpec(block, of_queries), pl.BlockSpec(held, of_keys), pl.BlockSpec(held, of_keys)]
        + [interval, interval],
        out_specs=[pl.BlockSpec(block, of_queries), pl.BlockSpec((1, 1, 1, sizes.queries), of_sums)][: 1 + sums],
        scratch_shapes=[
            column,
            column,
            pltpu.VMEM((sizes.queries, head_dim), jnp.float32),
            places,
            places,
        ],
    )
    out, *log_sum = pl.pallas_call(
        functools.partial(_kernel, sizes.keys, at, scaling, sums),
        grid_spec=spec,
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, length), jnp.float32),
        ][: 1 + sums],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=asked),
        cost_estimate=cost(query, key, products=2),
        name="attention_forward",
    )(steps.place, steps.work, query, key, value, *(bound[:, None] for bound in plan.intervals))
    return out, log_sum[0] if sums else None


def cost(query: jax.Array, key: jax.Array, products: int) -> pl.CostEstimate:
    """Of attention that sees half of all pairs, as causal rows of one document do: what XLA is told, before documents are."""
    batch, heads, length, head_dim = query.shape
    pairs = batch * heads * length * key.shape[2] // 2
    moved = 2 * math.prod(query.shape) + 2 * math.prod(key.shape)
    return pl.CostEstimate(
        flops=2 * products * pairs * head_dim,
        transcendentals=pairs,
        bytes_accessed=moved * query.dtype.itemsize * products // 2,
    )


def _kernel(block, at, scaling, sums, *refs):
    """One block of queries against one part of the keys.

    Scratch: of each query, in all lanes, the running maximum, and in each lane a part of the sum;
    the running result; the places of the first and the last key that each query sees, in all lanes.
    """
    places, work, query, key, value, first_seen, last_seen, out = refs[:8]
    highest, total, result, low, high = refs[8 + sums :]
    step = pl.program_id(1)
    _, _, part = at.of(places[step])
    work = Work.of(work[step])

    @pl.when(work.first == 1)
    def _():
        highest[...] = jnp.full_like(highest, LOWEST)
        total[...] = jnp.zeros_like(total)
        result[...] = jnp.zeros_like(result)
        low[...] = _upright(first_seen[0])
        high[...] = _upright(last_seen[0])

    def visit(masked: bool, number: jax.Array, _: None) -> None:
        start = pl.multiple_of(number * block, block)
        scores, _ = scaling.capped(product(query[0, 0], key[0, 0, pl.ds(start, block), :], (1, 1)))
        if masked:
            where = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) + (part * key.shape[2] + start)
            visible = (where >= across(low[...], block)) & (where <= across(high[...], block))
            scores = jnp.where(visible, scores, HIDDEN)
        before = highest[...]
        now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        shares = jnp.exp2(scores - across(now, block))
        kept = jnp.exp2(before - now)
        highest[...] = now
        # Lane by lane; the lanes are added at the end.
        total[...] = total[...] * kept + sum(shares[:, lane : lane + LANES] for lane in range(0, block, LANES))
        read = product(shares.astype(value.dtype), value[0, 0, pl.ds(start, block), :], (1, 0))
        result[...] = result[...] * across(kept, result.shape[1]) + read

    masked, whole = functools.partial(visit, True), functools.partial(visit, False)
    jax.lax.fori_loop(work.begin, work.clear, masked, None)
    jax.lax.fori_loop(work.clear, work.cloudy, whole, None)
    jax.lax.fori_loop(work.cloudy, work.end, masked, None)

    @pl.when(work.last == 1)
    def _():
        # Of a query that sees nothing the sum is 0.
        whole = jnp.maximum(jnp.sum(total[...], axis=1, keepdims=True), jnp.finfo(jnp.float32).tiny)
        out[0, 0] = (result[...] / whole).astype(out.dtype)
        if sums:
            refs[8][0, 0] = ((highest[...] + jnp.log2(whole)) * math.log(2.0)).T[:1]


def _upright(row: jax.Array) -> jax.Array:
    """[1, queries] -> [queries, 128], the same in all lanes."""
    return jnp.broadcast_to(row, (LANES, row.shape[1])).T
