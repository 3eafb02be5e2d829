"""The one call site of attention."""

import math

from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention.reference import reference_attention

IMPLEMENTATIONS = {"reference": reference_attention}


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
    implementation: str = "auto",
) -> Float[Array, "batch length heads head_dim"]:
    """softmax(scale * query . key) value, each token over its own segment; the dtype of `query`.

    Softmax and sums are float32. Query head h reads key head h // (heads / kv_heads). Tokens of other segments
    contribute exactly nothing: neither they nor their gradients can be told from the result. Padding (segment 0) sees
    padding and stays finite.

    Args:
        segment_ids: the document of each token; documents are contiguous in a row.
        causal: see nothing later in the row.
        window: see only the token itself and the window - 1 before it (and as many after it, if not causal).
        soft_cap: scores s become soft_cap * tanh(s / soft_cap).
        scale: of the scores; head_dim ** -0.5 unless given.
        implementation: by name; "auto" chooses the fastest for the platform.

    Raises:
        ConfigurationError: no implementation has this name.
        ValueError: shapes that do not fit.
    """
    if query.shape[2] % key.shape[2] or key.shape != value.shape or query.shape[:2] != key.shape[:2]:
        raise ValueError(f"attention: query {query.shape}, key {key.shape}, value {value.shape} do not fit each other.")
    if segment_ids.shape != query.shape[:2]:
        raise ValueError(f"attention: segment_ids {segment_ids.shape} do not fit query {query.shape}.")
    if window is not None and window < 1:
        raise ValueError(f"attention: window = {window}; it must be at least 1, the token itself.")
    chosen = "reference" if implementation == "auto" else implementation
    if chosen not in IMPLEMENTATIONS:
        names = ", ".join(["auto", *IMPLEMENTATIONS])
        raise ConfigurationError(f"attention: no implementation is called {implementation!r}; there are {names}.")
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    return IMPLEMENTATIONS[chosen](
        query, key, value, segment_ids=segment_ids, causal=causal, window=window, soft_cap=soft_cap, scale=scale
    )
