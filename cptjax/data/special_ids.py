"""The ids of special tokens that a config.json or generation_config.json names, moved to another vocabulary."""

from collections.abc import Mapping
from typing import Any

# Lists of ids, or of sequences of ids, that steer generation: what they mean in another vocabulary is not known.
_STEERING = (
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "forced_decoder_ids"),
    *("sequence_bias", "exponential_decay_length_penalty"),
)
_FILE_ONLY = ("tokenizer_class",)  # it names the class of the old tokenizer


def moved_ids(
    settings: Mapping[str, Any], roles: Mapping[str, int], new_ids: Mapping[int, int]
) -> tuple[dict[str, Any], list[str]]:
    """`settings` with every `*_token_id` moved, and the names of those that had to be left out.

    Args:
        roles: the new tokenizer's own "bos", "eos" and "pad": they stand wherever one of them did, and BOS and EOS are added.
        new_ids: an old id -> the new id of the same token.
    """
    moved, left_out = {}, []
    for name, value in settings.items():
        if name in _STEERING or name in _FILE_ONLY:
            left_out += [name] if value and name in _STEERING else []
        elif name.endswith("_token_id") and value is not None:
            old = value if isinstance(value, list) else [value]
            ids = [] if (own := roles.get(name.removesuffix("_token_id"))) is None else [own]
            ids += [new_ids[each] for each in old if each in new_ids]
            ids = list(dict.fromkeys(ids))
            moved[name] = (ids if isinstance(value, list) else ids[0]) if ids else None
            left_out += [] if ids else [name]
        else:
            moved[name] = value
    own = {f"{role}_token_id": roles[role] for role in ("bos", "eos") if role in roles}
    return own | moved | {name: i for name, i in own.items() if moved.get(name) is None}, left_out
