"""Attention by any keys, on one device: the two implementations that say with their result how much it weighs."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention.block_sizes import HEAD_DIM, BlockSizes, block_sizes_for
from cptjax.kernels.attention.intervals import Intervals
from cptjax.kernels.attention.plan import Plan, filled, plan_intervals
from cptjax.kernels.attention.reference import reference_attention, reference_gradients
from cptjax.kernels.attention.residuals import RESULT
from cptjax.kernels.attention.ring import Local
from cptjax.kernels.attention.scores import Scaling
from cptjax.kernels.device import GENERATIONS, generation_in_use


def check_kernels(kind: str, head_dim: int) -> None:
    """Refuses devices or a head dimension that our TPU kernels have no block sizes for.

    Raises:
        ConfigurationError: with what there is.
    """
    if kind not in GENERATIONS:
        raise ConfigurationError(
            f"attention: there are no block sizes of our kernels for {kind}, only for {', '.join(GENERATIONS)}.\n"
            "  Take 'auto', or 'reference'."
        )
    block_sizes_for(GENERATIONS[kind], filled(head_dim, HEAD_DIM), itemsize=2)


def local_plan(
    intervals: Intervals,
    keys: int,
    *,
    implementation: str,
    head_dim: int,
    dtype: jnp.dtype,
    block_sizes: BlockSizes | None = None,
) -> Plan | Intervals:
    """What `local_attention` needs to know of queries that see the keys in `intervals`, of `keys` keys that there are.

    Args:
        head_dim, dtype: of the queries.
        block_sizes: of our TPU kernels; the committed table's for the generation at hand unless given.
    """
    if implementation != "pallas_tpu":
        return intervals
    if block_sizes is None:
        block_sizes = block_sizes_for(generation_in_use(), filled(head_dim, HEAD_DIM), jnp.dtype(dtype).itemsize)
    return plan_intervals(intervals, keys, block_sizes)


def local_attention(
    implementation: str,
    soft_cap: float | None,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    sums: bool = True,
) -> Local:
    """Attention and its gradients by "reference" or "pallas_tpu".

    Args:
        causal, window: what is known of the intervals beforehand, where keys are the queries' own row.
        sums: whether log-sums are asked for; without them "pallas_tpu" gives None in their place.
    """
    if implementation == "pallas_tpu":
        # Here, since importing Pallas takes a fifth of the time that a run on a CPU takes to start.
        from cptjax.kernels.attention.tpu import tpu_attention, tpu_gradients

        kernel = {"scaling": Scaling(scale, soft_cap), "generation": generation_in_use()}
        forward = functools.partial(tpu_attention, sums=sums, **kernel)
        return Local(forward, functools.partial(tpu_gradients, **kernel))
    settings = {"soft_cap": soft_cap, "scale": scale, "causal": causal, "window": window}

    def forward(query: jax.Array, key: jax.Array, value: jax.Array, plan: Intervals) -> tuple[jax.Array, jax.Array]:
        out, log_sum = reference_attention(query, key, value, plan, **settings)
        return checkpoint_name(out, RESULT), log_sum

    return Local(forward, functools.partial(reference_gradients, **settings))
