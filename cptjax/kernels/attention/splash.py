"""JAX's own splash attention behind our interface: what ours is compared with on TPUs, and the way to do without it."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention.intervals import document_begins
from cptjax.kernels.attention.residuals import RESULT

_LANES = 128


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array,
    *,
    causal: bool,
    window: int | None,
    soft_cap: float | None,
    scale: float,
    block_sizes: splash.BlockSizes | None = None,
    interpret: bool = False,
) -> jax.Array:
    """See `attention.attention`. Documents hide pairs inside a block; which blocks are visited, causality and window say alone.

    Raises:
        ConfigurationError: a length or a head dimension that splash does not take.
    """
    length, head_dim = query.shape[1], query.shape[3]
    if length % _LANES:
        raise ConfigurationError(
            f"attention: splash takes rows of a multiple of {_LANES} tokens, not of {length}.\n"
            "  Change SEQUENCE_LENGTH, or take 'pallas_tpu' or 'reference'."
        )
    if window is not None:
        mask = masks.LocalMask((length, length), (window - 1, 0 if causal else window - 1), 0)
    else:
        mask = masks.CausalMask((length, length)) if causal else masks.FullMask((length, length))
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * query.shape[2]),
        block_sizes=block_sizes or fused(length, min(1024, length), min(512, length)),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=soft_cap,
        residual_checkpoint_name=RESULT,
        interpret=interpret,
    )
    query, key, value = (jnp.moveaxis(array, 2, 1) for array in (query * scale, key, value))
    missing = -head_dim % _LANES
    if missing:
        query, key, value = (jnp.pad(array, ((0, 0), (0, 0), (0, 0), (0, missing))) for array in (query, key, value))
    documents = jnp.cumsum(document_begins(segment_ids), axis=1, dtype=jnp.int32)
    out = jax.vmap(kernel)(query, key, value, splash.SegmentIds(documents, documents))
    return jnp.moveaxis(out, 1, 2)[..., :head_dim]


def fused(length: int, block: int, compute: int) -> splash.BlockSizes:
    """Block sizes with one backward kernel: `block` queries and keys, `compute` of the keys at a time."""
    block = next(size for size in range(block, 0, -_LANES) if length % size == 0)
    compute = next(size for size in range(min(block, compute), 0, -_LANES) if block % size == 0)
    return splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=compute,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=compute,
        use_fused_bwd_kernel=True,
    )
