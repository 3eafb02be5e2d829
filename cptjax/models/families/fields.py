"""Reading a Hugging Face config.json so that nothing in it is overlooked: what nobody asked for is refused by name."""

from collections.abc import Mapping
from typing import Any, ClassVar

from cptjax.errors import ConfigurationError

_REQUIRED = object()


class Fields:
    """The fields of one config.json, taken one by one; `finish` refuses those that remain.

    A field that cptjax does not know may change the mathematics, and a model that is computed wrongly looks like one
    that merely scores badly. A field that is null is as good as absent.
    """

    # Fields without influence on the logits: bookkeeping, generation, the source's own training. `auto_map` names code in the
    # folder, which transformers too leaves alone where it knows the model_type itself.
    HARMLESS: ClassVar[frozenset[str]] = frozenset(
        "model_type architectures transformers_version torch_dtype dtype _name_or_path name_or_path use_cache "
        "bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id tokenizer_class "
        "initializer_range attention_dropout hidden_dropout resid_dropout pretraining_tp return_dict output_attentions "
        "output_hidden_states torchscript use_bfloat16 chunk_size_feed_forward problem_type id2label label2id "
        "is_encoder_decoder is_llama_config transformers.js_config task_specific_params prefix finetuning_task "
        "do_sample temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size max_length "
        "min_length num_beams num_return_sequences early_stopping max_new_tokens use_return_dict "
        "embd_pdrop attn_pdrop resid_pdrop dropout activation_dropout layerdrop classifier_dropout init_std cache_implementation "
        "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout is_decoder "
        "unsloth_fixed unsloth_version _attn_implementation_autoset auto_map attention_probs_dropout_prob hidden_dropout_prob "
        "n_special predict_special_tokens output_past _num_labels max_sequence_length".split()
    )

    def __init__(self, config: Mapping[str, Any], model_type: str, source: str):
        self.left = {
            name: value for name, value in config.items() if name not in self.HARMLESS or name == "architectures"
        }
        self.model_type = model_type
        self.source = source

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """The value of a field, now accounted for; `default` where it is absent.

        Raises:
            ConfigurationError: it is absent and has no default.
        """
        value = self.left.pop(name, default)
        if value is _REQUIRED:
            raise ConfigurationError(
                f"{self.source} lacks {name!r}, without which a {self.model_type} model is not known."
            )
        return value

    def expect(self, name: str, value: Any) -> None:
        """Accepts a field only with this value (or absent).

        Raises:
            ConfigurationError: it has another.
        """
        found = self.take(name, value)
        if found is not None and found != value:
            only = "it must be left out" if value is None else f"only {value!r} is"
            raise ConfigurationError(
                f"{self.source}: {name} = {found!r} is not supported in a {self.model_type} model; {only}."
            )

    def finish(self) -> None:
        """Refuses fields that were not taken.

        Raises:
            ConfigurationError: naming all of them.
        """
        unknown = {name: value for name, value in self.left.items() if value is not None}
        if unknown:
            listed = ", ".join(f"{name} = {value!r}" for name, value in sorted(unknown.items()))
            raise ConfigurationError(
                f"{self.source} has field(s) that cptjax does not support in a {self.model_type} model: {listed}\n"
                "  They may change what the model computes, so it is not read. If you know that one has no influence, "
                "delete it from config.json."
            )
