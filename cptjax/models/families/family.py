"""A family of Hugging Face checkpoints, as a table: how its config and its tensors correspond to ours, both ways."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.fields import Fields
from cptjax.models.families.rope import read_rope, write_rope
from cptjax.models.model import WeightSpec, abstract_weights


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor of theirs is ours with its axes permuted and merged. Both directions follow from this one line.

    Attributes:
        order: our axes in their order.
        groups: how many of these are merged into each axis of theirs.
    """

    order: tuple[int, ...]
    groups: tuple[int, ...]

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Their shape for ours."""
        sizes = iter(shape[axis] for axis in self.order)
        merged = []
        for count in self.groups:
            size = 1
            for _ in range(count):
                size *= next(sizes)
            merged.append(size)
        return tuple(merged)

    def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Their tensor with our `shape`: a view, nothing is copied."""
        return tensor.reshape([shape[axis] for axis in self.order]).transpose(np.argsort(self.order))

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """Our array in their shape."""
        return array.transpose(self.order).reshape(self.their_shape(array.shape))


SAME_VECTOR = Layout((0,), (1,))
SAME_MATRIX = Layout((0, 1), (1, 1))
TRANSPOSED = Layout((1, 0), (1, 1))
HEADS_FIRST = Layout((1, 2, 0), (2, 1))  # ours [hidden, heads, head_dim], theirs [heads * head_dim, hidden]
HEADS_LAST = Layout((2, 0, 1), (1, 2))  # ours [heads, head_dim, hidden], theirs [hidden, heads * head_dim]
HEADS_VECTOR = Layout((0, 1), (2,))  # ours [heads, head_dim], theirs [heads * head_dim]

# The config fields that only change their name. Ours: theirs.
RENAMED = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp": "intermediate_size",
    "norm_epsilon": "rms_norm_eps",
    "tied_embeddings": "tie_word_embeddings",
    "maximum_length": "max_position_embeddings",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type` of Hugging Face.

    Attributes:
        architecture: the class that `architectures` names.
        defaults: what transformers takes for a config field that the file leaves out.
        fixed: fields with the only value that our decoder computes.
        read_special: the fields that say more than a number: (fields, layers) -> DecoderConfig keywords.
        write_special: their inverse.
        tensors: our name (the layer's number left out) -> (their name with `{i}` for it, layout).
    """

    model_type: str
    architecture: str
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    read_special: Callable[[Fields, int], dict[str, Any]]
    write_special: Callable[[DecoderConfig], dict[str, Any]]
    tensors: Mapping[str, tuple[str, Layout]]

    def read_config(self, hugging_face: Mapping[str, Any], source: str = "config.json") -> DecoderConfig:
        """The decoder that a config.json describes.

        Raises:
            ConfigurationError: a field that is missing, unknown, unsupported, or of a kind it cannot be.
        """
        try:
            return self._read_config(hugging_face, source)
        except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError) as error:
            raise ConfigurationError(f"{source}: a field is not what it should be ({error}).") from error

    def _read_config(self, hugging_face: Mapping[str, Any], source: str = "config.json") -> DecoderConfig:
        """Our config for theirs.

        Raises:
            ConfigurationError: a field is missing, unsupported, or unknown (it might change the mathematics).
        """
        fields = Fields(hugging_face, self.model_type, source)
        named = fields.take("architectures", None)
        if named and self.architecture not in named:
            raise ConfigurationError(
                f"{source}: architectures = {named}; of {self.model_type!r} models cptjax reads {self.architecture}."
            )
        for name, value in self.fixed.items():
            fields.expect(name, value)
        values = {ours: fields.take(theirs, *self._default(theirs)) for ours, theirs in RENAMED.items()}
        values["kv_heads"] = values["kv_heads"] or values["heads"]
        values["head_dim"] = values["head_dim"] or values["hidden"] // values["heads"]
        values |= read_rope(fields, values["maximum_length"]) | self.read_special(fields, values["layers"])
        fields.finish()
        try:
            return DecoderConfig(**values)
        except ConfigurationError as error:
            raise ConfigurationError(f"{source}: {error}") from None

    def _default(self, name: str) -> tuple[Any, ...]:
        return (self.defaults[name],) if name in self.defaults else ()

    def write_config(self, config: DecoderConfig, original: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Their config for ours: `original` as it was if it says the same, else written anew.

        Anew means in a form that transformers 4 and 5 both read, with what `original` knows beyond the architecture
        (special token ids and the like).

        Raises:
            ConfigurationError: this family cannot express `config`; names the field.
        """
        if (
            original is not None
            and original.get("model_type") == self.model_type
            and self.read_config(original) == config
        ):
            return dict(original)
        written = {"architectures": [self.architecture], "model_type": self.model_type, **self.fixed}
        written |= {theirs: getattr(config, ours) for ours, theirs in RENAMED.items()}
        written |= write_rope(config) | self.write_special(config)
        returned = self.read_config(written, f"a {self.model_type} config")
        for field in dataclasses.fields(DecoderConfig):
            ours, theirs = getattr(config, field.name), getattr(returned, field.name)
            if ours != theirs:
                raise ConfigurationError(
                    f"a {self.model_type} config.json cannot express {field.name} = {ours!r}; it would mean {theirs!r}."
                )
        return {name: value for name, value in (original or {}).items() if name in Fields.HARMLESS} | written


class Correspondence(NamedTuple):
    """One weight of ours and the tensors of theirs that make it: one, or one for each layer of the stack."""

    spec: WeightSpec
    stacked: bool
    names: tuple[str, ...]
    layout: Layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Our shape of one tensor: of one layer's, if stacked."""
        return self.spec.shape[1:] if self.stacked else self.spec.shape


def correspondences(family: Family, config: DecoderConfig) -> dict[str, Correspondence]:
    """For every weight of the decoder (by our name), where its values stand in a checkpoint of the family.

    Raises:
        ConfigurationError: the family has no tensor for one of the weights.
    """
    found = {}
    period = len(config.windows)
    for name, spec in abstract_weights(config).items():
        stacked = name.startswith("layers.")
        parts = name.split(".")
        position = 0
        if stacked and parts[1].startswith("pattern_"):
            position = int(parts.pop(1).removeprefix("pattern_"))
        plain = ".".join(parts)
        if plain not in family.tensors:
            raise ConfigurationError(f"a {family.model_type} checkpoint has no place for our weight {name!r}.")
        theirs, layout = family.tensors[plain]
        numbers = [repeat * period + position for repeat in range(spec.shape[0])] if stacked else [0]
        found[name] = Correspondence(spec, stacked, tuple(theirs.format(i=number) for number in numbers), layout)
    return found
