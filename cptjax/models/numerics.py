"""How a decoder's arithmetic is done: plain, frozen, checked data."""

import dataclasses

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention.choice import check_name
from cptjax.models.checked_fields import require_one_of

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "full", "dots", "dots_without_batch", "attention_output")


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How a decoder computes. None of it changes what is computed, save for `compute_dtype`'s rounding.

    Attributes:
        compute_dtype: dtype of activations and of the weights as the products see them. Weights are stored in float32;
            norms, softmax, rotary angles, logits and loss are float32 always. Float32 products name HIGHEST precision.
        remat: what the backward pass recomputes: "none" keeps every activation, "full" keeps only layer inputs, "dots"
            keeps the results of matrix products and of attention, "dots_without_batch" of products with weights only,
            "attention_output" each layer's attention result.
        scan_layers: one compiled layer in a loop (compile time constant in depth), or unrolled.
        attention: the implementation, by name; "auto" chooses by platform.
    """

    compute_dtype: str = "float32"
    remat: str = "none"
    scan_layers: bool = True
    attention: str = "auto"

    def __post_init__(self) -> None:
        require_one_of(self, "compute_dtype", COMPUTE_DTYPES, "numerics")
        require_one_of(self, "remat", REMAT_POLICIES, "numerics")
        check_name(self.attention)
        if not isinstance(self.scan_layers, bool):
            raise ConfigurationError(f"numerics: scan_layers = {self.scan_layers!r}; it must be True or False.")
