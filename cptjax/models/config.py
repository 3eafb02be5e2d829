"""What a decoder is: plain, frozen, checked data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.checked_fields import require_one_of, require_positive
from cptjax.models.rope_scaling import SCALINGS, LinearRope, Llama3Rope, RopeScaling, YarnRope

__all__ = ["DecoderConfig", "LinearRope", "Llama3Rope", "YarnRope"]

NORMS = ("rms", "layer")
NORM_PLACEMENTS = ("before", "after", "both", "sum")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu_squared")
POSITIONS = ("rotary", "learned")
QUERY_KEY_NORMS = (None, "head", "projection")
OF_EXPERTS = (
    "experts_per_token",
    "expert_mlp",
    "renormalised_experts",
    "dense_layers",
    "router_loss",
    "adds_router_loss",
)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer. As it stands by default: a Llama.

    Fields after `maximum_length` came later than the first runs; their defaults are what those runs computed.

    Attributes:
        vocabulary: rows of the embedding table (it may exceed the tokenizer's size).
        hidden: width of the residual stream.
        layers: number of layers, a multiple of `len(windows)`.
        heads, kv_heads: query heads, and the key/value heads they share.
        head_dim: width of one head; `heads * head_dim` need not equal `hidden`.
        mlp: inner width of the MLP.
        rope_theta, rope_scaling: base of the rotary frequencies, and how they are stretched.
        windows: the attention window of each layer, a pattern repeated over depth: None sees everything before it,
            w sees itself and the w - 1 tokens before.
        tied_embeddings: the head is the transposed embedding table.
        maximum_length: the longest sequence the checkpoint was made for. Learned positions end there; with rotary ones
            it is recorded and given back, not enforced.
        norm: "rms" has a scale, "layer" subtracts the mean and has a scale and a bias.
        norm_unit_offset: norms multiply by 1 + scale.
        norm_placement: of the residual stream "before" each block, of each block's result "after" it, "both", or of the
            "sum" of the two (the original transformer; such a model has no final norm).
        parallel_residual: attention and MLP read the same residual stream, and both are added to it.
        activation: of the MLP.
        gated_mlp: down(activation(gate(x)) * up(x)), else down(activation(up(x))).
        positions: "rotary" turns queries and keys, "learned" adds a row of a table to the embedding.
        position_offset: rows of that table that stand before position 0 (OPT has 2).
        rotary_fraction: the share of each head, its first dimensions, that is turned.
        window_rope_theta: the base in layers that have a window, which are not stretched; None: as in the others.
        query_key_norm: queries and keys are normalised, each "head" by itself or the whole "projection".
        attention_scale: of the attention scores; None is head_dim ** -0.5.
        attention_soft_cap, logit_soft_cap: scores, and final logits s, become cap * tanh(s / cap).
        embedding_scale: what embeddings are multiplied by, rounded to the compute dtype.
        embedding_width: width of the embedding table where it is not `hidden`; projections stand in between.
        padded_vocabulary: rows of the embedding table and of the head where they are more than `vocabulary`, so that a mesh
            divides them. The rows behind are zero, nothing reads or writes them, and an export leaves them out.
        experts: how many MLPs of width `expert_mlp` stand in place of a layer's one, of which a token's router chooses
            `experts_per_token`; None: there is one MLP, for all tokens.
        renormalised_experts: the shares of a token's chosen experts are made to add up to 1.
        dense_layers: which layers of the pattern that `windows` repeats have one MLP (of width `mlp`) all the same; () is none.
        router_loss: the checkpoint's own coefficient of the router's load-balancing loss (models/experts.py).
        adds_router_loss: whether the checkpoint says that this loss is trained on (`Run.router_loss` may say otherwise).
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
    rope_scaling: RopeScaling | None = None
    windows: tuple[int | None, ...] = (None,)
    query_key_value_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = False
    maximum_length: int = 2048
    norm: str = "rms"
    norm_unit_offset: bool = False
    norm_placement: str = "before"
    parallel_residual: bool = False
    activation: str = "silu"
    gated_mlp: bool = True
    positions: str = "rotary"
    position_offset: int = 0
    rotary_fraction: float = 1.0
    window_rope_theta: float | None = None
    query_key_norm: str | None = None
    attention_scale: float | None = None
    attention_soft_cap: float | None = None
    logit_soft_cap: float | None = None
    embedding_scale: float | None = None
    embedding_width: int | None = None
    padded_vocabulary: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    expert_mlp: int | None = None
    renormalised_experts: bool = True
    dense_layers: tuple[bool, ...] = ()
    router_loss: float = 0.0
    adds_router_loss: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple(self.windows))
        object.__setattr__(self, "dense_layers", tuple(self.dense_layers))
        sizes = ("vocabulary", "hidden", "layers", "heads", "kv_heads", "head_dim", "mlp", "maximum_length")
        optional = ("window_rope_theta", "attention_scale", "attention_soft_cap", "logit_soft_cap", "embedding_scale")
        counts = ("embedding_width", "padded_vocabulary", "experts", "experts_per_token", "expert_mlp")
        counts = tuple(name for name in counts if getattr(self, name) is not None)
        for name in (*sizes, "position_offset", *counts):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigurationError(f"model config: {name} = {value!r}; it must be a whole number.")
        said = [name for name in optional if getattr(self, name) is not None]
        require_positive(self, *sizes, *counts, "norm_epsilon", "rope_theta", "rotary_fraction", *said)
        for field in dataclasses.fields(self):
            if field.type is bool and not isinstance(getattr(self, field.name), bool):
                value = getattr(self, field.name)
                raise ConfigurationError(f"model config: {field.name} = {value!r}; it must be True or False.")
        for name, allowed in (
            ("norm", NORMS),
            ("norm_placement", NORM_PLACEMENTS),
            ("activation", ACTIVATIONS),
            ("positions", POSITIONS),
            ("query_key_norm", QUERY_KEY_NORMS),
        ):
            require_one_of(self, name, allowed, "model config")
        if self.heads % self.kv_heads:
            raise ConfigurationError(f"model config: kv_heads = {self.kv_heads} does not divide heads = {self.heads}.")
        if self.padded_vocabulary is not None and self.padded_vocabulary <= self.vocabulary:
            raise ConfigurationError(
                f"model config: padded_vocabulary = {self.padded_vocabulary}, which must be more than vocabulary = "
                f"{self.vocabulary}; None where there is no padding."
            )
        self._check_windows()
        self._check_positions()
        self._check_experts()
        if self.parallel_residual and self.norm_placement != "before":
            raise ConfigurationError(
                f"model config: norm_placement = {self.norm_placement!r} with parallel_residual, which needs 'before'."
            )

    def _check_windows(self) -> None:
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

    def _check_positions(self) -> None:
        if self.rope_scaling is not None and type(self.rope_scaling) not in SCALINGS.values():
            raise ConfigurationError(
                f"model config: rope_scaling = {self.rope_scaling!r}; it must be "
                f"{', '.join(kind.__name__ for kind in SCALINGS.values())} or None."
            )
        if self.position_offset < 0:
            raise ConfigurationError(f"model config: position_offset = {self.position_offset}; it must be at least 0.")
        if self.positions == "learned":
            for name in ("rope_scaling", "window_rope_theta"):
                if getattr(self, name) is not None:
                    raise ConfigurationError(f"model config: {name} says nothing where positions are learned.")
        elif self.position_offset:
            raise ConfigurationError("model config: position_offset says nothing where positions are rotary.")
        elif self.rotary_fraction > 1 or self.rotary_dim < 2 or self.rotary_dim % 2:
            raise ConfigurationError(
                f"model config: head_dim = {self.head_dim} and rotary_fraction = {self.rotary_fraction} turn "
                f"{self.rotary_dim} dimensions; rotary positions need an even number, head_dim at most."
            )

    def _check_experts(self) -> None:
        said = {field.name: field.default for field in dataclasses.fields(self) if field.name in OF_EXPERTS}
        if self.experts is None:
            for name, default in said.items():
                if getattr(self, name) != default:
                    raise ConfigurationError(f"model config: {name} says nothing where experts is None.")
            return
        if self.experts_per_token is None or self.expert_mlp is None:
            raise ConfigurationError("model config: experts needs experts_per_token and expert_mlp.")
        if self.experts_per_token > self.experts:
            raise ConfigurationError(
                f"model config: experts_per_token = {self.experts_per_token} of experts = {self.experts}."
            )
        if not self.gated_mlp or self.mlp_bias:
            raise ConfigurationError("model config: experts have a gate and no biases: gated_mlp, and no mlp_bias.")
        dense = self.dense_layers
        if dense and (len(dense) != len(self.windows) or all(dense) or not all(isinstance(d, bool) for d in dense)):
            raise ConfigurationError(
                f"model config: dense_layers = {dense}; it says True or False for each of windows = {self.windows}, "
                "and False at least once."
            )
        loss = self.router_loss
        if isinstance(loss, bool) or not isinstance(loss, int | float) or not 0 <= loss < float("inf"):
            raise ConfigurationError(f"model config: router_loss = {loss!r}; it must be a number from 0 on.")

    @property
    def mixed_layers(self) -> tuple[bool, ...]:
        """Which layers of the repeated pattern have experts."""
        if self.experts is None:
            return (False,) * len(self.windows)
        return tuple(not dense for dense in self.dense_layers) or (True,) * len(self.windows)

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of a head are turned."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def vocabulary_rows(self) -> int:
        """Rows of the embedding table and of the head, those of padding among them."""
        return self.vocabulary if self.padded_vocabulary is None else self.padded_vocabulary

    def padded(self, multiple: int) -> "DecoderConfig":
        """The same model with the fewest rows of padding that make `vocabulary_rows` a multiple of `multiple`."""
        rows = -(-self.vocabulary // multiple) * multiple
        return dataclasses.replace(self, padded_vocabulary=None if rows == self.vocabulary else rows)

    def unpadded(self) -> "DecoderConfig":
        """The same model without rows of padding."""
        return self if self.padded_vocabulary is None else dataclasses.replace(self, padded_vocabulary=None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data from which `from_json` makes an equal config.

        A later field stands there only where it departs from its default: what described a model before it was
        thought of describes it still, word for word.
        """
        fields = dataclasses.fields(self)
        first = [field.name for field in fields].index("maximum_length") + 1
        kept = [field.name for i, field in enumerate(fields) if i < first or getattr(self, field.name) != field.default]
        values = {name: getattr(self, name) for name in kept}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return values | {"rope_scaling": self.rope_scaling and self.rope_scaling.to_json()}

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
            scaling = dict(values["rope_scaling"])
            kind = scaling.pop("kind", Llama3Rope.KIND)
            if kind not in SCALINGS:
                raise ConfigurationError(
                    f"model config: rope_scaling of kind {kind!r}; there are {', '.join(SCALINGS)}."
                )
        try:
            if values.get("rope_scaling") is not None:
                values["rope_scaling"] = SCALINGS[kind](**scaling)
            return cls(**values)
        except TypeError as error:
            raise ConfigurationError(f"model config: {error}") from None
