"""What a decoder is (`DecoderConfig`) and how its arithmetic is done (`Numerics`): plain, frozen, checked data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "full", "dots", "dots_without_batch", "attention_output")
ATTENTION_IMPLEMENTATIONS = ("auto", "reference")


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Llama 3.1's stretching of the rotary frequencies: long wavelengths are slowed by `factor`, short ones kept.

    Wavelengths above `original_length / low_frequency_factor` are slowed, those below
    `original_length / high_frequency_factor` kept, those between interpolated.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_length: int

    def __post_init__(self) -> None:
        _require_positive(self, "factor", "low_frequency_factor", "high_frequency_factor", "original_length")
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ConfigurationError(
                f"rope_scaling: high_frequency_factor ({self.high_frequency_factor}) must be greater than "
                f"low_frequency_factor ({self.low_frequency_factor})."
            )


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer: RMSNorm before each block, rotary positions, grouped queries, gated (SiLU) MLP.

    Attributes:
        vocabulary: rows of the embedding table (it may exceed the tokenizer's size).
        hidden: width of the residual stream.
        layers: number of layers, a multiple of `len(windows)`.
        heads, kv_heads: query heads, and the key/value heads they share.
        head_dim: width of one head (even); `heads * head_dim` need not equal `hidden`.
        mlp: inner width of the gated MLP.
        windows: the attention window of each layer, a pattern repeated over depth: None sees everything before it,
            w sees itself and the w - 1 tokens before.
        tied_embeddings: the head is the transposed embedding table.
        maximum_length: the longest sequence the checkpoint was made for; recorded and given back, not enforced here.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: Llama3Rope | None = None
    windows: tuple[int | None, ...] = (None,)
    query_key_value_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = False
    maximum_length: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple(self.windows))
        whole = ("vocabulary", "hidden", "layers", "heads", "kv_heads", "head_dim", "mlp", "maximum_length")
        for name in whole:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigurationError(f"model config: {name} = {value!r}; it must be a whole number.")
        _require_positive(self, *whole, "norm_epsilon", "rope_theta")
        for name in ("query_key_value_bias", "output_bias", "mlp_bias", "tied_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"model config: {name} = {getattr(self, name)!r}; it must be True or False.")
        if self.heads % self.kv_heads:
            raise ConfigurationError(f"model config: kv_heads = {self.kv_heads} does not divide heads = {self.heads}.")
        if self.head_dim % 2:
            raise ConfigurationError(f"model config: head_dim = {self.head_dim}; rotary positions need an even one.")
        if not self.windows or self.layers % len(self.windows):
            raise ConfigurationError(
                f"model config: windows = {self.windows} is a pattern of {len(self.windows)} layer(s), which does not "
                f"divide layers = {self.layers}."
            )
        for window in self.windows:
            if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
                raise ConfigurationError(
                    f"model config: windows holds {window!r}; a window is None or at least 1 token."
                )
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, Llama3Rope):
            raise ConfigurationError(
                f"model config: rope_scaling = {self.rope_scaling!r}; it must be a Llama3Rope or None."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data from which `from_json` makes an equal config."""
        return dataclasses.asdict(self) | {"windows": list(self.windows)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "DecoderConfig":
        """The config that `to_json` wrote.

        Raises:
            ConfigurationError: an unknown or missing field, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigurationError(
                f"model config: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}."
            )
        values = dict(data)
        if values.get("rope_scaling") is not None:
            values["rope_scaling"] = Llama3Rope(**values["rope_scaling"])
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigurationError(f"model config: {error}") from None


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How a decoder computes. None of it changes what is computed, save for `compute_dtype`'s rounding.

    Attributes:
        compute_dtype: dtype of activations and of the weights as the products see them. Weights are stored in float32;
            norms, softmax, rotary angles, logits and loss are float32 always. Float32 products name HIGHEST precision.
        remat: what the backward pass recomputes: "none" keeps every activation, "full" keeps only layer inputs, "dots"
            keeps the results of matrix products, "dots_without_batch" of those with weights only, "attention_output"
            each layer's attention result.
        scan_layers: one compiled layer in a loop (compile time constant in depth), or unrolled.
        attention: the implementation, by name; "auto" chooses by platform.
    """

    compute_dtype: str = "float32"
    remat: str = "none"
    scan_layers: bool = True
    attention: str = "auto"

    def __post_init__(self) -> None:
        _require_one_of(self, "compute_dtype", COMPUTE_DTYPES)
        _require_one_of(self, "remat", REMAT_POLICIES)
        _require_one_of(self, "attention", ATTENTION_IMPLEMENTATIONS)
        if not isinstance(self.scan_layers, bool):
            raise ConfigurationError(f"numerics: scan_layers = {self.scan_layers!r}; it must be True or False.")


def _require_positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ConfigurationError(f"model config: {name} = {value!r}; it must be a number above 0.")


def _require_one_of(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    if getattr(config, name) not in allowed:
        raise ConfigurationError(
            f"numerics: {name} = {getattr(config, name)!r}; it must be one of {', '.join(allowed)}."
        )
