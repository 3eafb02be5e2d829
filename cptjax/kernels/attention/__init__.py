"""Attention: one call site (`attention`), its plain-JAX reference, and the faster implementations beside it."""

from cptjax.kernels.attention.attention import attention

__all__ = ["attention"]
