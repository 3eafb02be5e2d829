"""What a tokenizer loses of a text, by name: its normalizer's and pre-tokenizer's steps that no decoding can undo.

Not counted: U+2581, which every SentencePiece-like tokenizer takes for a space.
"""

import json
from collections.abc import Iterable, Mapping

from tokenizers import AddedToken, pre_tokenizers

FIRST_SPACE = "a text's first space (it is added where there is none)"
UNKNOWN = "characters outside the vocabulary (no byte fallback)"
_WHITE_SPACE = "white space between words"
# Steps that lose nothing; a step that is not known is named, for it may.
_LOSSLESS = {
    *("ByteLevel", "Prepend", "Digits", "UnicodeScripts", "Split", "Punctuation", "Metaspace", "FixedLength"),
}
_NAMES = {
    "Precompiled": "Precompiled (SentencePiece's map of characters, such as nmt_nfkc)",
    "Strip": "Strip (white space at the ends)",
    "Whitespace": f"Whitespace ({_WHITE_SPACE})",
    "WhitespaceSplit": f"WhitespaceSplit ({_WHITE_SPACE})",
    "BertPreTokenizer": f"BertPreTokenizer ({_WHITE_SPACE})",
    "Nmt": "Nmt (control characters, kinds of spaces)",
}


def lossy_in_pipeline(source: Mapping, added: Iterable[AddedToken]) -> tuple[str, ...]:
    """What the pipeline of a tokenizer.json loses.

    Args:
        source: the file.
        added: its special tokens, those of other files too.
    """
    found: list[str] = []
    kinds = set()
    for step in [*_steps(source.get("normalizer")), *_steps(source.get("pre_tokenizer"))]:
        kinds.add(step["type"])
        found += _of_step(step)
    found += _unknown(source["model"], "ByteLevel" in kinds)
    return tuple(dict.fromkeys([*found, *_taken_spaces(added)]))


def lossy_in_sentencepiece(proto, prefix: bool, added: Iterable[AddedToken]) -> tuple[str, ...]:
    """What a SentencePiece model (a ModelProto) loses, read with (`prefix`) or without its dummy prefix."""
    rules = proto.normalizer_spec
    found = []
    if rules.precompiled_charsmap:
        found.append(rules.name if rules.name not in ("", "user_defined") else "a map of characters of its own")
    if rules.remove_extra_whitespaces:
        found.append("remove_extra_whitespaces (repeated spaces, spaces at the ends)")
    elif prefix:
        found.append(FIRST_SPACE)
    if not proto.trainer_spec.byte_fallback:
        found.append(UNKNOWN)
    return tuple([*found, *_taken_spaces(added)])


def _steps(part: Mapping | None) -> list[Mapping]:
    """The steps of a normalizer or pre-tokenizer, in order."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        inner = part.get("normalizers", part.get("pretokenizers", []))
        return [step for each in inner for step in _steps(each)]
    return [part]


def _of_step(step: Mapping) -> list[str]:
    kind = step["type"]
    if kind == "BertNormalizer":
        strips = step.get("strip_accents")
        strips = step.get("lowercase", True) if strips is None else strips
        on = {
            "clean_text": step.get("clean_text", True),
            "lowercase": step.get("lowercase", True),
            "strip_accents": strips,
        }
        return [f"BertNormalizer ({name})" for name, does in on.items() if does]
    if kind == "Strip" and not (step.get("strip_left", True) or step.get("strip_right", True)):
        return []
    if kind == "Replace":
        pattern = step["pattern"].get("String", step["pattern"].get("Regex"))
        replaced = step["content"]
        return [] if (pattern, replaced) == (" ", "\u2581") else [f"Replace ({pattern!r} by {replaced!r})"]
    if kind in ("Split", "Punctuation") and step.get("behavior") == "Removed":
        return [f"{kind} (what it splits at)"]
    if kind == "Metaspace" and step.get("prepend_scheme", "always") != "never":
        return [FIRST_SPACE]
    if kind == "ByteLevel" and step.get("add_prefix_space"):
        return [FIRST_SPACE]
    return [] if kind in _LOSSLESS else [_NAMES.get(kind, kind)]


def _unknown(model: Mapping, by_bytes: bool) -> list[str]:
    """Whether there are characters that the model has no ids for."""
    vocabulary = model.get("vocab") or ()
    pieces = {piece for piece, _ in vocabulary} if isinstance(vocabulary, list) else vocabulary
    if by_bytes:
        needed = pre_tokenizers.ByteLevel.alphabet()
    elif model.get("byte_fallback"):
        needed = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        return [UNKNOWN]
    return [] if all(piece in pieces for piece in needed) else [UNKNOWN]


def _taken_spaces(added: Iterable[AddedToken]) -> list[str]:
    takers = sorted(token.content for token in added if token.lstrip or token.rstrip)
    return [f"spaces beside {', '.join(json.dumps(token, ensure_ascii=False) for token in takers)}"] if takers else []
