"""Text with everything in it that cannot be seen made visible."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterator, Sequence

PLAIN, SIGN, SPECIAL = "", "sign", "special"
_PICTURES = {"\t": "→\t", "\n": "↵\n", "\x7f": "␡"}
_SHOWN_BY_CODE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_SPACES = "Zs"


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of text: PLAIN, or a SIGN for what has no look of its own, or a SPECIAL token written out.

    A sign ends with the white space that it stands for, so that lines break where they did.
    """

    text: str
    kind: str = PLAIN


def visible(text: str, special: Sequence[str] = ()) -> Iterator[Span]:
    """The spans of a text in order. Control and format characters, unassigned ones and odd spaces are written as U+XXXX.

    Args:
        special: how the tokenizer writes its special tokens, which are marked where they stand in the text.
    """
    parts = re.split("(" + "|".join(map(re.escape, special)) + ")", text) if special else [text]
    for number, part in enumerate(parts):
        if number % 2:
            yield Span(part, SPECIAL)
            continue
        plain: list[str] = []
        for character in part:
            if (shown := _shown(character)) is None:
                plain.append(character)
                continue
            if plain:
                yield Span("".join(plain))
                plain = []
            yield Span(shown, SIGN)
        if plain:
            yield Span("".join(plain))


def _shown(character: str) -> str | None:
    """What stands for a character that cannot be seen; None for one that can."""
    if character in _PICTURES:
        return _PICTURES[character]
    if character < " ":
        return chr(0x2400 + ord(character))
    kind = unicodedata.category(character)
    if kind in _SHOWN_BY_CODE or kind == _SPACES and character not in (" ", "\u3000"):
        return f"U+{ord(character):04X}"
    return None
