"""What a change of vocabulary does, for people: what becomes of the tokens, and what its reader may not expect."""

from collections.abc import Iterable

from cptjax.data.token_contents import Token, Vocabulary
from cptjax.data.tokenizer import Tokenizer
from cptjax.data.vocabulary_mapping import VocabularyMapping


def counts(mapping: VocabularyMapping) -> dict[str, int]:
    """Numbers of tokens: old, new, copied, made, dropped, and of those made the ones that no old pieces cover."""
    made = len(mapping.made)
    return {
        "old_tokens": len(mapping.known),
        "new_tokens": len(mapping.copied),
        "copied": len(mapping.copied) - made,
        "made": made,
        "dropped": len(mapping.dropped),
        "uncovered": len(mapping.uncovered),
    }


def describe_change(
    before: Vocabulary, after: Vocabulary, mapping: VocabularyMapping, old: Tokenizer, new: Tokenizer, rows: int
) -> list[str]:
    """Lines: the counts, and warnings. rows: of the old table, which may be more than the old tokenizer's ids."""
    found = counts(mapping)
    moved = sum(int(old_id) not in (-1, i) for i, old_id in enumerate(mapping.copied))
    pieces = [len(mapping.pieces[i]) for i in mapping.made if mapping.pieces[i]]
    each = f"; their texts are {sum(pieces) / len(pieces):.2f} old pieces each" if pieces else ""
    lines = [
        f"{found['old_tokens']:,} tokens -> {found['new_tokens']:,}",
        f"{found['copied']:,} copied, {moved:,} of them to another id; {found['dropped']:,} dropped",
        f"{found['made']:,} made{each}",
    ]
    if rows > len(before.tokens):
        lines.append(f"{rows - len(before.tokens):,} rows of the checkpoint that are no token's: dropped")
    if found["uncovered"]:
        lines.append(f"{found['uncovered']:,} that old pieces do not cover, or ids of no token: the mean of all rows")
    return [*lines, *_unreachable(after, mapping, new), *_split_otherwise(before, after, mapping, old, new)]


def _unreachable(after: Vocabulary, mapping: VocabularyMapping, new: Tokenizer) -> list[str]:
    """Tokens that were added to a vocabulary without its merges are never given: their rows stay as they are made."""
    texts = _texts((int(i), after.tokens[i]) for i in mapping.made)
    given = zip(texts, new.encode_batch(list(texts.values())), strict=True)
    never = [i for i, ids in given if i not in ids]
    if not never:
        return []
    return [
        f"warning: {len(never):,} new tokens are not what the new tokenizer makes of their own text, first "
        f"{texts[never[0]]!r}.",
        "  A token without merges of its own is never read, and its row never trained.",
    ]


def _split_otherwise(
    before: Vocabulary, after: Vocabulary, mapping: VocabularyMapping, old: Tokenizer, new: Tokenizer
) -> list[str]:
    """Text that both vocabularies can write, and write in different ways: the model has learned the old one."""
    kept = _texts((int(i), before.tokens[i]) for i in mapping.copied if i >= 0)
    texts = list(kept.values())
    pairs = zip(texts, old.encode_batch(texts), new.encode_batch(texts), strict=True)
    other = [(text, one, two) for text, one, two in pairs if [int(mapping.copied[i]) for i in two] != one]
    if not other:
        return []
    text, one, two = other[0]
    return [
        f"warning: the texts of {len(other):,} of {len(texts):,} copied tokens are split otherwise now, first {text!r}:",
        f"  {_shown(before, one)} before, {_shown(after, two)} now. The model has learned them as they were.",
    ]


def _texts(tokens: Iterable[tuple[int, Token | None]]) -> dict[int, str]:
    """The texts of tokens that are text: not of special ones, bytes, or parts of a character."""
    found = {}
    for i, token in tokens:
        if token is not None and not token.special and not token.is_byte:
            text = token.content.decode("utf-8", "replace")
            if "\ufffd" not in text:
                found[i] = text
    return found


def _shown(vocabulary: Vocabulary, ids: Iterable[int]) -> str:
    return " + ".join(repr(vocabulary.tokens[i].content.decode("utf-8", "replace")) for i in ids)
