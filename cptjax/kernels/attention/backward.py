"""The backward pass in Pallas for TPU: one kernel for the gradients of queries, keys and values (arXiv 2307.08691, 3.1.2).

Scores stand upright, keys by queries, so that what is known of a query is a row and no lane is shuffled. A part of the keys
and the sums of its gradients stay in VMEM while the queries pass. Rows longer than one part loop over parts, and the queries'
gradients are added up through them.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from cptjax.kernels.attention.block_sizes import LANES, vmem_asked
from cptjax.kernels.attention.forward import cost
from cptjax.kernels.attention.plan import Plan, Steps, Work, filled
from cptjax.kernels.attention.scores import HIDDEN, LOG2E, Scaling, product


def attention_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cotangent: jax.Array,
    log_sum: jax.Array,
    delta: jax.Array,
    plan: Plan,
    scaling: Scaling,
    vmem: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values, in shapes and dtypes of theirs.

    Args:
        query, key, value, log_sum: as `attention_forward` took and gave them. The gradient is of the queries as they were
            before they were scaled.
        cotangent: of its result, like `query`.
        delta: of each query the sum over its result times the cotangent, less the cotangent of its log-sum; float32
            [batch, heads, 1, length].
        vmem: bytes of VMEM that a kernel may take.
    """
    arrays = (query, key, value, cotangent, log_sum * LOG2E, delta)
    if len(plan.backward) == 1:
        return _part(arrays, None, plan.backward[0], plan, scaling, vmem)

    def part(of_query: jax.Array, steps: Steps) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        of_query, *of_part = _part(arrays, of_query, steps, plan, scaling, vmem)
        return of_query, tuple(of_part)

    every = jax.tree.map(lambda *parts: jnp.stack(parts), *plan.backward)
    of_query, of_parts = jax.lax.scan(part, jnp.zeros(query.shape, jnp.float32), every)
    of_key, of_value = (jnp.moveaxis(parts, 0, 2).reshape(*key.shape[:2], -1, key.shape[3]) for parts in of_parts)
    return of_query.astype(query.dtype), of_key, of_value


def _part(
    arrays: tuple[jax.Array, ...],
    so_far: jax.Array | None,
    steps: Steps,
    plan: Plan,
    scaling: Scaling,
    vmem: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One part of the keys against all queries. so_far: the queries' gradients, added to in place."""
    query, key = arrays[:2]
    batch, heads, _, head_dim = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    sizes, at = plan.sizes, steps.at
    resident = sizes.backward_resident_keys

    def of_queries(kv_head, step, member, place, _):
        row, queries, _ = at.of(place[step])
        return row, kv_head * group + member, queries, 0

    def of_keys(kv_head, step, member, place, _):
        row, _, part = at.of(place[step])
        return row, kv_head, part, 0

    def of_gradients(kv_head, step, member, place, _):
        return at.of(place[step])[0], kv_head, 0, 0

    def of_sums(kv_head, step, member, place, _):
        row, queries, _ = at.of(place[step])
        return row, kv_head * group + member, 0, queries

    def of_rows(kv_head, step, member, place, _):
        row, queries, _ = at.of(place[step])
        return row, 0, queries

    block = pl.BlockSpec((1, 1, sizes.backward_queries, head_dim), of_queries)
    held = (1, 1, resident, head_dim)
    sums = pl.BlockSpec((1, 1, 1, sizes.backward_queries), of_sums)
    interval = pl.BlockSpec((1, 1, sizes.backward_queries), of_rows)
    keys = pl.BlockSpec(held, of_keys)
    gradients = pl.BlockSpec(held, of_gradients)
    prefetched = steps.place, steps.work
    inputs = [*arrays, *(bound[:, None] for bound in plan.intervals)]
    specs = [block, keys, keys, block, sums, sums, interval, interval]
    if so_far is not None:
        inputs.append(so_far)
        specs.append(block)
    item, row = query.dtype.itemsize, filled(head_dim, LANES)
    asked = vmem_asked(
        held=row * (sizes.backward_queries * (item + 4) + 2 * resident * 4),
        passing=row * (4 * resident * item + sizes.backward_queries * (3 * item + (0 if so_far is None else 8))),
        scores=4 * sizes.backward_queries * sizes.backward_keys,
        most=vmem,
    )
    like_keys = jax.ShapeDtypeStruct((batch, kv_heads, resident, head_dim), key.dtype)
    return pl.pallas_call(
        functools.partial(_kernel, sizes.backward_keys, at, scaling, so_far is not None),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(prefetched),
            grid=(kv_heads, steps.count[0], group),
            in_specs=specs,
            out_specs=[block, gradients, gradients],
            scratch_shapes=[
                pltpu.VMEM((sizes.backward_queries, head_dim), query.dtype),
                pltpu.VMEM((sizes.backward_queries, head_dim), jnp.float32),
                pltpu.VMEM((resident, head_dim), jnp.float32),
                pltpu.VMEM((resident, head_dim), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query.dtype if so_far is None else jnp.float32),
            like_keys,
            like_keys,
        ],
        input_output_aliases={} if so_far is None else {len(prefetched) + len(inputs) - 1: 0},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=asked
        ),
        cost_estimate=cost(query, key[:, :, :resident], products=5),
        name="attention_backward",
    )(*prefetched, *inputs)


def _kernel(block, at, scaling, adds, *refs):
    """One block of queries of one head against one part of the keys.

    Scratch: the scaled queries; the sums of the gradients: of the queries, of the part's keys, of its values.
    """
    places, work, query, key, value, cotangent, log_sum, delta, first_seen, last_seen = refs[:10]
    of_query, of_key, of_value, scaled, sum_of_query, sum_of_key, sum_of_value = refs[10 + adds :]
    step, member = pl.program_id(1), pl.program_id(2)
    _, _, part = at.of(places[step])
    work = Work.of(work[step])

    @pl.when((work.first == 1) & (member == 0))
    def _():
        sum_of_key[...] = jnp.zeros_like(sum_of_key)
        sum_of_value[...] = jnp.zeros_like(sum_of_value)

    # A v5p is estimated to take 2409 bundles a block from queries as they come, or from a plain copy, and 2247 from what was
    # float32 on its way here. So they are, times a one that the compiler does not know to be one.
    one = (work.end >= 0).astype(jnp.float32)
    scaled[...] = (query[0, 0].astype(jnp.float32) * one).astype(scaled.dtype)
    sum_of_query[...] = jnp.zeros_like(sum_of_query)

    def visit(masked: bool, number: jax.Array, _: None) -> None:
        here = pl.ds(pl.multiple_of(number * block, block), block)
        keys, values, reads = key[0, 0, here, :], value[0, 0, here, :], cotangent[0, 0]
        scores, slope = scaling.capped(product(keys, scaled[...], (1, 1)))
        if masked:
            where = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0) + (part * key.shape[2] + number * block)
            scores = jnp.where((where >= first_seen[0]) & (where <= last_seen[0]), scores, HIDDEN)
        shares = jnp.exp2(scores - log_sum[0, 0])
        sum_of_value[here, :] += product(shares.astype(reads.dtype), reads, (1, 0))
        of_scores = shares * (product(values, reads, (1, 1)) - delta[0, 0])
        of_scores = (of_scores if slope is None else of_scores * slope).astype(keys.dtype)
        sum_of_key[here, :] += product(of_scores, scaled[...], (1, 0))
        sum_of_query[...] += product(of_scores, keys, (0, 0))

    masked, whole = functools.partial(visit, True), functools.partial(visit, False)
    jax.lax.fori_loop(work.begin, work.clear, masked, None)
    jax.lax.fori_loop(work.clear, work.cloudy, whole, None)
    jax.lax.fori_loop(work.cloudy, work.end, masked, None)

    # What the scores' gradient was multiplied by is the scaled queries; theirs is by the keys as they are.
    found = sum_of_query[...] * scaling.scale
    of_query[0, 0] = (found + refs[10][0, 0] if adds else found).astype(of_query.dtype)

    @pl.when((work.last == 1) & (member == pl.num_programs(2) - 1))
    def _():
        of_key[0, 0] = (sum_of_key[...] * (scaling.scale / scaling.of_queries)).astype(of_key.dtype)
        of_value[0, 0] = sum_of_value[...].astype(of_value.dtype)
