"""Attention: one call site (`attention`), its plain-JAX reference, and the faster implementations beside it.

`cached_attention` is its counterpart for generation, where keys and values of earlier tokens are kept.
"""

from cptjax.kernels.attention.attention import attention
from cptjax.kernels.attention.cached import cached_attention

__all__ = ["attention", "cached_attention"]
