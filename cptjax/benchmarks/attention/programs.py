"""The programs that are compiled, in child processes of `cptjax.benchmarks.ahead_of_time`, and what is read from them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.benchmarks.ahead_of_time import devices_of
from cptjax.benchmarks.attention.parts import parts, to_json
from cptjax.benchmarks.bundles import read_kernels


def splash(
    generation: str,
    length: int,
    heads: int,
    head_dim: int,
    packed: bool,
    backward: bool,
    blocks: Sequence[int],
    dumps: str,
) -> dict[str, Any]:
    """JAX's splash attention alone, causal, one row, heads first.

    Args:
        packed: with segment ids.
        backward: the fused backward kernel, else the forward one (as training takes it, with its log-sums).
        blocks: of queries, of keys, and of keys that are computed at a time.

    Returns:
        The kernel's parts.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    queries, keys, computed = blocks
    sizes = kernels.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_kv_compute=computed,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        block_kv_dkv_compute=computed,
        use_fused_bwd_kernel=True,
    )
    mask = masks.MultiHeadMask([masks.CausalMask((length, length))] * heads)
    kernel = kernels.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1)

    def attend(query, key, value, segment_ids):
        return kernel(query, key, value, kernels.SegmentIds(segment_ids, segment_ids) if packed else None)

    tokens = (heads, length, head_dim)
    shapes = [(tokens, jnp.bfloat16)] * 3 + [((length,), jnp.int32)]
    if backward:
        _compile(_gradients(attend), [*shapes, (tokens, jnp.bfloat16)], generation)
    else:
        _compile(lambda *arrays: jax.vjp(attend, *arrays), shapes, generation)
    return _parts(dumps, "splash_mha_dkv" if backward else "splash_mha_fwd")


def attention(
    generation: str,
    length: int,
    heads: int,
    head_dim: int,
    implementation: str,
    backward: bool,
    dumps: str,
    block_sizes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """`kernels.attention.attention` of one causal row with segment ids, bfloat16, in whichever implementation.

    Documents are data: whether the row is packed or one document, it is the same program.

    Args:
        backward: the gradients of query, key and value, else the result alone.
        block_sizes: of our kernels; the committed table's unless given.

    Returns:
        "temporary_bytes" of device memory; "square": whether an array of length x length stands in the program; and the
        parts of our kernels, "forward" and "backward", where they are in it.
    """
    import jax.numpy as jnp

    from cptjax.kernels.attention import attention, plan_attention
    from cptjax.kernels.attention.block_sizes import BlockSizes

    def attend(query, key, value, segment_ids):
        plan = None
        if block_sizes is not None:
            sizes, how = BlockSizes(**block_sizes), {"head_dim": head_dim, "dtype": query.dtype}
            plan = plan_attention(segment_ids, implementation=implementation, block_sizes=sizes, **how)
        return attention(query, key, value, segment_ids=segment_ids, plan=plan, implementation=implementation)

    tokens = ((1, length, heads, head_dim), jnp.bfloat16)
    shapes = [tokens, tokens, tokens, ((1, length), jnp.int32)]
    program = (
        _compile(_gradients(attend), [*shapes, tokens], generation)
        if backward
        else _compile(attend, shapes, generation)
    )
    found = {
        "temporary_bytes": program.memory_analysis().temp_size_in_bytes,
        "square": has_square(program.as_text(), length),
    }
    if implementation == "pallas_tpu":
        found["forward"] = _parts(dumps, "attention_forward")
        if backward:
            found["backward"] = _parts(dumps, "attention_backward")
    return found


def _gradients(attend: Callable) -> Callable:
    """Of query, key and value, from the cotangent of the result."""
    import jax

    def gradients(query, key, value, segment_ids, cotangent):
        _, back = jax.vjp(lambda *arrays: attend(*arrays, segment_ids), query, key, value)
        return back(cotangent)

    return gradients


def _compile(function: Callable, shapes: Sequence[tuple], generation: str) -> Any:
    """The program for one device."""
    import jax

    mesh = jax.sharding.Mesh(
        np.array(devices_of(generation)[:1]), ("device",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    placed = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=placed) for shape, dtype in shapes]
    with jax.set_mesh(mesh):  # Pallas asks it which chip it compiles for
        return jax.jit(function).lower(*arguments).compile()


def _parts(dumps: str, named: str) -> dict[str, Any]:
    """Of the only kernel with such a name."""
    (kernel,) = read_kernels(dumps, named).values()
    return to_json(parts(kernel))


def has_square(text: str, length: int) -> bool:
    """Whether an array of length x length, of any further dimensions before, stands in a program's text."""
    return re.search(rf"\[(?:\d+,)*{length},{length}\]", text) is not None
