"""From one vocabulary to another: which tokens are the same, and into which old ones a new one falls."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cptjax.data.token_contents import Token, Vocabulary

# Texts that a token's text is read behind, where at the beginning of a text the tokenizer would put a space before it.
_BEFORE = ("\n", "a", "1", "。", "(")

# Texts -> the ids of each, nothing added before or after (`Tokenizer.encode_batch`).
Encode = Callable[[Sequence[str]], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class VocabularyMapping:
    """How the tokens of a new vocabulary follow from those of an old one.

    Attributes:
        copied: int64 [new]: the old token that is the same, -1 where there is none.
        pieces: for each new token that has none: the old tokens that its text falls into; () where they do not cover it.
        old_size: ids of the old vocabulary.
        known: int64: the ids that are old tokens.
        same_role: old token -> the new one that has its role.
    """

    copied: np.ndarray
    pieces: tuple[tuple[int, ...], ...]
    old_size: int
    known: np.ndarray
    same_role: dict[int, int]

    @property
    def made(self) -> np.ndarray:
        """The new tokens that are no old ones, int64."""
        return np.flatnonzero(self.copied < 0)

    @property
    def dropped(self) -> np.ndarray:
        """The old tokens that are no new ones, int64."""
        return np.setdiff1d(self.known, self.copied)

    @property
    def uncovered(self) -> np.ndarray:
        """Those of `made` that no old tokens cover, int64."""
        return np.array([i for i in self.made if not self.pieces[i]], np.int64)

    @functools.cached_property
    def new_ids(self) -> dict[int, int]:
        """Old token -> the new one that is the same: of several that with its role, else the first."""
        found: dict[int, int] = {}
        for new, old in enumerate(self.copied.tolist()):
            if old >= 0:
                found.setdefault(old, new)
        return found | self.same_role


def map_vocabulary(old: Vocabulary, new: Vocabulary, encode_old: Encode) -> VocabularyMapping:
    """Finds for each new token the old one that stands for the same, else the old ones that its text is made of.

    A token with a role is that of the same role; another special token the one that is written the same; every other the one
    that stands for the same bytes. A new token that begins and ends texts (both roles) is the old end.
    """
    copied = np.full(len(new.tokens), -1, np.int64)
    special = {t.content: i for i, t in _listed(old) if t.special}
    by_piece: dict[bytes, int] = {}
    by_byte: dict[bytes, int] = {}
    for i, token in _listed(old):
        if not token.special:
            (by_byte if token.is_byte else by_piece).setdefault(token.content, i)
    for i, token in _listed(new):
        tables = (special, by_piece) if token.special else (by_byte, by_piece) if token.is_byte else (by_piece, by_byte)
        copied[i] = next((table[token.content] for table in tables if token.content in table), -1)
    same_role: dict[int, int] = {}
    roles = {"bos": old.roles.get("eos", -1), **old.roles}  # without BOS, EOS begins a document too (Tokenizer.start)
    for role in ("pad", "unk", "bos", "eos"):  # a later one counts where a token has several
        if role in new.roles and roles.get(role, -1) >= 0:
            copied[new.roles[role]] = roles[role]
            if role in old.roles:
                same_role[roles[role]] = new.roles[role]
    made = [i for i, token in _listed(new) if copied[i] < 0]
    split = split_contents([new.tokens[i].content for i in made], old, encode_old)
    pieces: list[tuple[int, ...]] = [()] * len(new.tokens)
    for i, found in zip(made, split, strict=True):
        pieces[i] = found
    known = np.array([i for i, _ in _listed(old)], np.int64)
    return VocabularyMapping(copied, tuple(pieces), len(old.tokens), known, same_role)


def split_contents(contents: Sequence[bytes], vocabulary: Vocabulary, encode: Encode) -> list[tuple[int, ...]]:
    """For each content the ids of tokens that together stand for just these bytes; () where there are none.

    As the tokenizer splits them: by themselves, or behind another text, where it would add a space at the beginning. Where that
    gives other bytes (a normaliser, half a character), the longest token that fits, from left to right. Where no tokens
    cover them, what the tokenizer reads instead, if it knows all of it.
    """
    found: list[tuple[int, ...]] = [()] * len(contents)
    texts = {i: text for i, content in enumerate(contents) if (text := _text(content)) is not None}
    alone = dict(zip(texts, encode(list(texts.values())), strict=True))
    left = dict(texts)
    for before in ("", *_BEFORE):
        read = alone.values() if not before else encode([before + text for text in left.values()])
        for i, ids in list(zip(left, read, strict=True)):
            end = _last(ids, contents[i], vocabulary.tokens)
            if end and (before or len(end) == len(ids)):
                found[i] = end
                del left[i]
        if not left:
            break
    longest = _Longest(vocabulary)
    for i, content in enumerate(contents):
        if not found[i]:
            found[i] = longest.split(content)
        if not found[i] and all(_is_text(vocabulary.tokens, token) for token in alone.get(i, ())):
            found[i] = tuple(alone.get(i, ()))
    return found


def _listed(vocabulary: Vocabulary) -> Iterable[tuple[int, Token]]:
    return ((i, token) for i, token in enumerate(vocabulary.tokens) if token is not None)


def _text(content: bytes) -> str | None:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_text(tokens: Sequence[Token | None], i: int) -> bool:
    return i < len(tokens) and tokens[i] is not None and not tokens[i].special


def _last(ids: Sequence[int], content: bytes, tokens: Sequence[Token | None]) -> tuple[int, ...]:
    """The last of `ids` that stand for just `content`; () where no such end is cut there."""
    end = b""
    for n, i in enumerate(reversed(ids), start=1):
        if not _is_text(tokens, i):
            return ()
        end = tokens[i].content + end
        if len(end) >= len(content):
            return tuple(ids[len(ids) - n :]) if end == content else ()
    return ()


class _Longest:
    """Splits bytes into a vocabulary's tokens, the longest that fits first."""

    def __init__(self, vocabulary: Vocabulary):
        self.ids: dict[bytes, int] = {}
        for i, token in sorted(_listed(vocabulary), key=lambda each: each[1].is_byte):  # a piece before the byte
            if not token.special and token.content:
                self.ids.setdefault(token.content, i)
        self.lengths = sorted({len(content) for content in self.ids}, reverse=True)

    def split(self, content: bytes) -> tuple[int, ...]:
        found, at = [], 0
        while at < len(content):
            fits = (content[at : at + n] for n in self.lengths if at + n <= len(content))
            piece = next((part for part in fits if part in self.ids), None)
            if piece is None:
                return ()
            found.append(self.ids[piece])
            at += len(piece)
        return tuple(found)
