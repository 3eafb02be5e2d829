"""A family of Hugging Face checkpoints, as a table: how its config and its tensors correspond to ours, both ways."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import Layout, Tensors
from cptjax.models.families.rope import PLAIN, RopeFields, read_rope, write_rope
from cptjax.models.model import WeightSpec, abstract_weights

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

THEIR_ACTIVATION = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu_squared": "relu2",
}
# Other names for the same.
ACTIVATIONS = {theirs: ours for ours, theirs in THEIR_ACTIVATION.items()} | {
    "swish": "silu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type` of Hugging Face.

    Attributes:
        architecture: the class that `architectures` names.
        defaults: what transformers takes for a config field that the file leaves out.
        fixed: fields with the only value that our decoder computes.
        accepted: likewise, of fields that some published files have and transformers does not: they are not written.
        read_special: the fields that say more than a number: (fields, DecoderConfig keywords so far) -> further keywords.
        write_special: their inverse.
        tensors: our name (the layer's number left out) -> (their name with `{i}` for it, layout); several of ours where
            their tensor holds them all. `{e}` is the number of an expert that has a tensor of its own.
        constants: what all models of the family are, in our words.
        renamed: the config fields that only change their name. Ours: theirs.
        activation: the field that names the MLP's activation, None if it is one of `fixed` or `read_special`.
        rope: where the rotary settings stand; None if positions are learned or `read_special` reads them.
        prefix: what the names in some checkpoints lack: those saved from the model without its head.
        derived: suffixes of tensors that older checkpoints carry although they follow from the config.
    """

    model_type: str
    architecture: str
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    read_special: Callable[[Fields, Mapping[str, Any]], dict[str, Any]]
    write_special: Callable[[DecoderConfig], dict[str, Any]]
    tensors: Tensors
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    renamed: Mapping[str, str] = dataclasses.field(default_factory=lambda: RENAMED)
    accepted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    activation: str | None = None
    rope: RopeFields | None = PLAIN
    prefix: str = ""
    derived: tuple[str, ...] = (".rotary_emb.inv_freq",)

    def unprefixed(self) -> "Family":
        """The family with the names of a model saved without its head."""
        tensors = {ours: (name.removeprefix(self.prefix), layout) for ours, (name, layout) in self.tensors.items()}
        return dataclasses.replace(self, tensors=tensors)

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
        for name, value in (*self.fixed.items(), *self.accepted.items()):
            fields.expect(name, value)
        values = {ours: fields.take(theirs, *self._default(theirs)) for ours, theirs in self.renamed.items()}
        if values.get("kv_heads") is None:
            values["kv_heads"] = values["heads"]
        if values.get("head_dim") is None:
            values["head_dim"] = values["hidden"] // values["heads"]
        values |= self.constants
        if self.activation is not None:
            values["activation"] = read_activation(fields, self.activation, *self._default(self.activation))
        if self.rope is not None:
            values |= read_rope(fields, values["maximum_length"], self.rope)
        values |= self.read_special(fields, values)
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
        config = config.unpadded()
        if (
            original is not None
            and original.get("model_type") == self.model_type
            and self.read_config(original) == config
        ):
            return dict(original)
        written = {"architectures": [self.architecture], "model_type": self.model_type, **self.fixed}
        written |= {theirs: getattr(config, ours) for ours, theirs in self.renamed.items()}
        if self.activation is not None:
            written[self.activation] = THEIR_ACTIVATION[config.activation]
        if self.rope is not None:
            written |= write_rope(config, self.rope)
        written |= self.write_special(config)
        returned = self.read_config(written, f"a {self.model_type} config")
        for field in dataclasses.fields(DecoderConfig):
            ours, theirs = getattr(config, field.name), getattr(returned, field.name)
            if ours != theirs:
                raise ConfigurationError(
                    f"a {self.model_type} config.json cannot express {field.name} = {ours!r}; it would mean {theirs!r}."
                )
        return {name: value for name, value in (original or {}).items() if name in Fields.HARMLESS} | written


def read_activation(fields: Fields, name: str, *default: Any) -> str:
    """Our name of the activation.

    Raises:
        ConfigurationError: it is none of those that the decoder has.
    """
    found = fields.take(name, *default)
    if found not in ACTIVATIONS:
        raise ConfigurationError(
            f"{fields.source}: {name} = {found!r} is not supported; supported are {', '.join(sorted(ACTIVATIONS))}."
        )
    return ACTIVATIONS[found]


class Correspondence(NamedTuple):
    """One weight of ours and the tensors of theirs that hold it: one, or one for each layer of the stack (and expert).

    Attributes:
        names: of their tensors, in the order of our stack: layer by layer, in each expert by expert.
        together: the weights of ours that these tensors hold, this one among them; their shapes as `shape`.
    """

    spec: WeightSpec
    names: tuple[str, ...]
    layout: Layout
    together: dict[str, tuple[int, ...]]
    part: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Our shape of one tensor: of one layer's (and expert's), if stacked."""
        return _one(self.spec)

    @property
    def stacked(self) -> bool:
        """Whether our weight is a stack."""
        return bool(self.spec.counts)

    def place(self, index: int) -> tuple[int, ...]:
        """Where the tensor names[index] stands in our stack: (layer,) or (layer, expert); () if it is no stack."""
        return tuple(int(number) for number in np.unravel_index(index, self.spec.counts)) if self.stacked else ()

    @property
    def their_shape(self) -> tuple[int, ...]:
        """Their shape of one tensor."""
        return self.layout.their_shape(*self.together.values())

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """Our weight in their tensor: a view."""
        return self.layout.to_ours(tensor, *self.together.values(), part=self.part)


def _one(spec: WeightSpec) -> tuple[int, ...]:
    return spec.shape[len(spec.counts) :]


def correspondences(family: Family, config: DecoderConfig) -> dict[str, Correspondence]:
    """For every weight of the decoder (by our name), where its values stand in a checkpoint of the family.

    Raises:
        ConfigurationError: the family has no tensor for one of the weights.
    """
    found = {}
    period = len(config.windows)
    specs = abstract_weights(config)
    table = {ours: names for names in family.tensors for ours in ([names] if isinstance(names, str) else names)}
    for name, spec in specs.items():
        stacked = name.startswith("layers.")
        parts = name.split(".")
        position = 0
        prefix = ""
        if stacked and parts[1].startswith("pattern_"):
            prefix = parts.pop(1)
            position = int(prefix.removeprefix("pattern_"))
        plain = ".".join(parts)
        if plain not in table:
            raise ConfigurationError(f"a {family.model_type} checkpoint has no place for our weight {name!r}.")
        theirs, layout = family.tensors[table[plain]]
        together = [table[plain]] if isinstance(table[plain], str) else table[plain]
        full = [each.replace("layers.", f"layers.{prefix}.", 1) if prefix else each for each in together]
        numbers = [repeat * period + position for repeat in range(spec.shape[0])] if stacked else [0]
        experts = range(spec.counts[1] if len(spec.counts) > 1 else 1)
        names = tuple(theirs.format(i=number, e=expert) for number in numbers for expert in experts)
        shapes = {each: _one(specs[each]) for each in full}
        found[name] = Correspondence(spec, names, layout, shapes, full.index(name))
    return found


def first_parts(entries: Mapping[str, Correspondence]) -> list[tuple[str, Correspondence, int]]:
    """Every tensor of theirs once: its name, the first of our weights in it, and its number among that one's `names`."""
    first = [entry for entry in entries.values() if entry.part == 0]
    return [(theirs, entry, index) for entry in first for index, theirs in enumerate(entry.names)]
