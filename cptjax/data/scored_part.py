"""Of a held-out document the part that counts: what follows a text in it, as an answer does its question."""

import dataclasses
from collections.abc import Iterator, Sequence

from cptjax.data.document import Document
from cptjax.data.sources import Source, documents
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class ScoredPart:
    """What counts of a document: its targets from the `first` on (counted from 0), and the raw UTF-8 `bytes` that they say."""

    first: int
    bytes: int


def scored_parts(source: Source, tokenizer: Tokenizer, chosen: Sequence[int]) -> Iterator[ScoredPart]:
    """The part of each of the `chosen` documents of a source (their ordinals, ascending), whose text is read again.

    Raises:
        ConfigurationError: a document without the text that the source's `scored_after` names, or with nothing behind it.
    """
    wanted = iter(chosen)
    following = next(wanted, None)
    for ordinal, document in enumerate(documents(source, tokenizer)):
        if following is None:
            return
        if ordinal == following:
            yield scored_part(document, source.settings.scored_after, tokenizer)
            following = next(wanted, None)


def scored_part(document: Document, mark: str, tokenizer: Tokenizer) -> ScoredPart:
    """What follows the last `mark` in the document, to its end.

    A tokenizer may join the mark's last characters with the first of what follows: the part begins behind the last token that
    the text up to there has in common with the whole.
    """
    before, found, after = document.text.rpartition(mark)
    if not found or not after:
        what = "does not hold" if not found else "ends with"
        raise ConfigurationError(
            f"the held-out document {document.name!r} {what} {mark!r}, after which it is to be scored (scored_after)."
        )
    told = tokenizer.encode(before + mark)
    whole = tokenizer.encode(document.text) if document.tokens is None else document.tokens
    first = next((i for i, (one, other) in enumerate(zip(told, whole, strict=False)) if one != other), len(told))
    return ScoredPart(min(first, len(whole)), len(after.encode("utf-8")))
