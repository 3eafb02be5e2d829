"""Attention: one call site (`attention`), its plain-JAX reference, and the faster implementations beside it.

`plan_attention` finds once for a batch what every layer then uses. `cached_attention` is the counterpart for generation,
where keys and values of earlier tokens are kept.
"""

from cptjax.kernels.attention.attention import attention, plan_attention
from cptjax.kernels.attention.cached import cached_attention
from cptjax.kernels.attention.residuals import LOG_SUM, RESULT

__all__ = ["LOG_SUM", "RESULT", "attention", "cached_attention", "plan_attention"]
