"""The one call site of attention."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention.block_sizes import BlockSizes
from cptjax.kernels.attention.choice import chosen
from cptjax.kernels.attention.intervals import Intervals, visible_keys
from cptjax.kernels.attention.local import local_attention, local_plan
from cptjax.kernels.attention.plan import Plan
from cptjax.kernels.attention.tokamax import tokamax_attention


def plan_attention(
    segment_ids: Int[Array, "batch length"],
    *,
    head_dim: int,
    dtype: jnp.dtype,
    causal: bool = True,
    window: int | None = None,
    implementation: str = "auto",
    block_sizes: BlockSizes | None = None,
) -> Plan | Intervals:
    """What `attention` needs to know of a batch's documents: found once, and used by every layer with this window.

    Args:
        segment_ids, causal, window, implementation: as for `attention`.
        head_dim, dtype: of the queries.
        block_sizes: of our TPU kernels; the committed table's for the generation at hand unless given.

    Raises:
        ConfigurationError: no implementation has this name, or there are no block sizes for the head dimension.
    """
    return local_plan(
        visible_keys(segment_ids, causal, window),
        segment_ids.shape[1],
        implementation=chosen(implementation),
        head_dim=head_dim,
        dtype=dtype,
        block_sizes=block_sizes,
    )


def attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length kv_heads head_dim"],
    value: Float[Array, "batch length kv_heads head_dim"],
    *,
    segment_ids: Int[Array, "batch length"],
    causal: bool = True,
    window: int | None = None,
    soft_cap: float | None = None,
    scale: float | None = None,
    sinks: Float[Array, " heads"] | None = None,
    plan: Plan | Intervals | None = None,
    implementation: str = "auto",
) -> Float[Array, "batch length heads head_dim"]:
    """softmax(scale * query . key) value, each token over its own document; the dtype of `query`.

    Softmax and sums are float32. Query head h reads key head h // (heads / kv_heads). Tokens of other documents
    contribute exactly nothing: neither they nor their gradients can be told from the result. Padding (segment 0) sees
    padding and stays finite.

    Args:
        segment_ids: a run of equal ids is a document; see `intervals.visible_keys`.
        causal: see nothing later in the row.
        window: see only the token itself and the window - 1 before it (and as many after it, if not causal).
        soft_cap: scores s become soft_cap * tanh(s / soft_cap).
        scale: of the scores; head_dim ** -0.5 unless given.
        sinks: of each head a score without a value, which takes its share of the softmax (arXiv 2309.17453, as learned
            scores in gpt-oss).
        plan: what `plan_attention` found for the same segment ids, causality, window and implementation; found here unless
            given, which is right for one call and wasteful for a stack of layers.
        implementation: by name; "auto" chooses for the platform and logs what and why (`choice.py`).

    Raises:
        ConfigurationError: no implementation has this name, or it does not offer what is asked.
        ValueError: shapes that do not fit.
    """
    _check(query, key, value, segment_ids, window, sinks)
    implementation = chosen(implementation)
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    if implementation in ("splash", "tokamax") and sinks is not None:
        raise ConfigurationError(
            f"attention: {implementation} is offered without sinks; take 'pallas_tpu' or 'reference'."
        )
    if implementation == "splash":
        from cptjax.kernels.attention.splash import splash_attention  # imports Pallas, which only TPUs need

        masks = {"causal": causal, "window": window, "soft_cap": soft_cap, "scale": scale}
        return splash_attention(query, key, value, segment_ids, **masks)
    if plan is None:
        shape = {"head_dim": query.shape[3], "dtype": query.dtype, "causal": causal, "window": window}
        plan = plan_attention(segment_ids, implementation=implementation, **shape)
    if isinstance(plan, Plan) != (implementation == "pallas_tpu"):
        raise ValueError(f"attention: the plan is not {implementation}'s; plan_attention was asked for another.")
    planned = (len(plan.intervals.first), plan.length) if isinstance(plan, Plan) else plan.first.shape
    if planned != query.shape[:2]:
        raise ValueError(f"attention: the plan is of rows {planned}, query {query.shape} has others.")
    if implementation == "tokamax":
        return tokamax_attention(query, key, value, plan, causal=causal, soft_cap=soft_cap, scale=scale)
    local = local_attention(implementation, soft_cap, scale, causal, window, sums=sinks is not None)
    out, log_sum = local.forward(query, key, value, plan)
    # A sink takes exp(sink) / (exp(sink) + exp(log_sum)) of every softmax.
    return out if sinks is None else (out * jax.nn.sigmoid(log_sum - sinks)[..., None]).astype(out.dtype)


def _check(query, key, value, segment_ids, window, sinks) -> None:
    if query.shape[2] % key.shape[2] or key.shape != value.shape or query.shape[:2] != key.shape[:2]:
        raise ValueError(f"attention: query {query.shape}, key {key.shape}, value {value.shape} do not fit each other.")
    if segment_ids.shape != query.shape[:2]:
        raise ValueError(f"attention: segment_ids {segment_ids.shape} do not fit query {query.shape}.")
    if window is not None and window < 1:
        raise ValueError(f"attention: window = {window}; it must be at least 1, the token itself.")
    if sinks is not None and sinks.shape != query.shape[2:3]:
        raise ValueError(f"attention: sinks {sinks.shape} do not fit query {query.shape}: one for each head.")
