"""What a selection keeps or drops: documents, whole, or cut into passages of so many tokens. Kept in a folder, read once.

A unit's id is its document's, and of a passage also which of the document's tokens it is: `name#256-512` is tokens 256 to 511.
The passages of a document, one after another, are its text again.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from cptjax.data.document import Document
from cptjax.data.sources import Source, documents
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local, whole_file

DOCUMENTS, PASSAGES = "documents", "passages"
KINDS = (DOCUMENTS, PASSAGES)
_NAMES, _PLACES, _TOKENS = "documents.jsonl", "units.npz", "tokens.npy"
_TOGETHER = 256  # documents that are encoded in one call
_BACK = 8  # tokens that a cut may move, off the inside of a character


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of a corpus, in its order.

    Attributes:
        source: where their texts are read from.
        names: of the documents.
        document: int64 [units], the document of each, as an index of `names`.
        first, last: int64 [units], which of the document's tokens; 0 and 0 without a tokenizer.
        begin, end: int64 [units], which of its characters.
        bytes: int64 [units], of the text in UTF-8.
        tokens: uint32, the tokens of all units one after another, none added (a memmap); None without a tokenizer.
        passages: whether they are passages.
    """

    source: Source
    names: Sequence[str]
    document: np.ndarray
    first: np.ndarray
    last: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    bytes: np.ndarray
    tokens: np.ndarray | None
    passages: bool

    def __len__(self) -> int:
        return len(self.document)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [units], in tokens; in bytes without a tokenizer."""
        return self.bytes if self.tokens is None else self.last - self.first

    def id(self, unit: int) -> str:
        """The id of a unit."""
        name = self.names[self.document[unit]]
        return f"{name}#{self.first[unit]}-{self.last[unit]}" if self.passages else name

    def texts(self) -> Iterator[str]:
        """The text of every unit, in order."""
        for document, units in self.with_documents():
            for unit in units:
                yield document.text[self.begin[unit] : self.end[unit]]

    def with_documents(self) -> Iterator[tuple[Document, range]]:
        """Every document that has units, and these.

        Raises:
            CptjaxError: the text is not what the units were made of.
        """
        bounds = np.searchsorted(self.document, np.arange(len(self.names) + 1)).tolist()
        for n, document in enumerate(documents(self.source)):
            if n >= len(self.names) or document.name != self.names[n]:
                raise CptjaxError(f"{self.source.where} has changed since this selection began: begin another one.")
            yield document, range(bounds[n], bounds[n + 1])

    def token_sequences(self, units: Sequence[int]) -> Iterator[np.ndarray]:
        """The tokens of these units, uint32 each."""
        ends = np.cumsum(self.last - self.first)
        for unit in units:
            yield np.asarray(self.tokens[ends[unit] - (self.last[unit] - self.first[unit]) : ends[unit]])


def make_units(
    source: Source,
    tokenizer: Tokenizer | None,
    kind: str,
    passage_tokens: int,
    folder: epath.Path,
    identity: object = None,
) -> Units:
    """Reads a corpus once and keeps its units in `folder`, or finds them there.

    Args:
        tokenizer: what counts tokens; None: sizes are bytes, and units are documents.
        identity: of the text, as JSON; units that were made of another are refused.
        kind: "documents" or "passages"; passage_tokens: of a passage; a document's last one has what is left.

    Raises:
        ConfigurationError: another kind, passages without a tokenizer, an empty corpus, or a folder with other units.
    """
    check_units(kind, passage_tokens, tokenizer is not None)
    fingerprint = tokenizer.fingerprint if tokenizer else None
    of = json.dumps([identity, fingerprint, kind, passage_tokens if kind == PASSAGES else None])
    if (folder / _PLACES).exists():  # it is written last
        return open_units(source, folder, kind, of)
    names: list[str] = []
    rows: list[tuple[int, int, int, int, int, int]] = []
    parts: list[np.ndarray] = []
    for batch in _batches(documents(source)):
        texts = [document.text for document in batch]
        encoded = tokenizer.encode_batch(texts) if tokenizer else [()] * len(batch)
        for document, ids in zip(batch, encoded, strict=True):
            whole = [(0, len(ids), 0, len(document.text))]
            cuts = list(passages(document.text, ids, tokenizer, passage_tokens)) if kind == PASSAGES else whole
            rows += [(len(names), *cut, len(document.text[cut[2] : cut[3]].encode())) for cut in cuts]
            names.append(document.name)
            parts.append(np.asarray(ids, np.uint32))
    if not rows:
        raise ConfigurationError(f"INPUT is empty: there is no document with text in {source.where}.")
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / _NAMES) as stream:
        stream.write("".join(json.dumps(name) + "\n" for name in names).encode())
    if tokenizer is not None:
        with whole_file(folder / _TOKENS) as stream:
            np.save(stream, np.concatenate(parts), allow_pickle=False)
    with whole_file(folder / _PLACES) as stream:
        np.savez(stream, places=np.array(rows, np.int64), of=np.array(of))
    return open_units(source, folder, kind, of)


def open_units(source: Source, folder: epath.Path, kind: str, of: str) -> Units:
    """The units that `make_units` kept; `of`: what they are to be made of."""
    names = list(map(json.loads, (folder / _NAMES).read_text(encoding="utf-8").splitlines()))
    with (folder / _PLACES).open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
        places = kept["places"]
        if str(kept["of"]) != of:
            raise ConfigurationError(
                f"{folder} holds the units of another corpus, or cut otherwise.\n  Name another OUTPUT_DIR, or remove that folder."
            )
    tokens = _open_tokens(folder / _TOKENS) if (folder / _TOKENS).exists() else None
    return Units(source, names, *places.T.copy(), tokens, kind == PASSAGES)


def _open_tokens(path: epath.Path) -> np.ndarray:
    if is_local(path):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with path.open("rb") as stream:
        return np.load(stream, allow_pickle=False)


def check_units(kind: str, passage_tokens: int, tokenizer: bool) -> None:
    """Refuses settings that cut no units.

    Raises:
        ConfigurationError: with what there is.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"UNIT = {kind!r}: one of {', '.join(KINDS)}.")
    if kind == PASSAGES and not tokenizer:
        raise ConfigurationError(
            "UNIT = 'passages' needs to know what a token is: set TOKENIZER to a tokenizer's folder, or a checkpoint's."
        )
    if kind == PASSAGES and passage_tokens < 1:
        raise ConfigurationError(f"PASSAGE_TOKENS = {passage_tokens}: a passage has at least one token.")


def passages(text: str, ids: Sequence[int], tokenizer: Tokenizer, most: int) -> Iterator[tuple[int, int, int, int]]:
    """(first token, last, first character, last) of each passage, of `most` tokens but for the last one.

    A passage ends a few tokens sooner where it would end inside a character, or later where a character is all that it has.
    Where the tokenizer loses what it was given, so that characters cannot be told from tokens, it ends at the share of the text
    that its tokens are of all.
    """
    token, character = 0, 0
    if not len(ids):
        yield 0, 0, 0, len(text)
    while token < len(ids):
        last = min(token + most, len(ids))
        end = len(text)
        if last < len(ids):
            last, end = _cut(text, character, ids, token, last, tokenizer)
        yield token, last, character, end
        token, character = last, end


def _cut(text: str, character: int, ids: Sequence[int], token: int, last: int, tokenizer: Tokenizer) -> tuple[int, int]:
    """Where a passage ends that begins at `token` and `character`, at `last` or a little before: token and character."""
    before = list(ids[max(0, token - 1) : token])  # what begins a text is decoded otherwise than what goes on
    known = len(tokenizer.decode(before)) if before else 0
    shorter, longer = range(last, max(token, last - _BACK), -1), range(last + 1, min(last + _BACK, len(ids)))
    for tried in (*shorter, *longer):
        piece = tokenizer.decode([*before, *ids[token:tried]])[known:]
        if piece and text.startswith(piece, character):
            return tried, character + len(piece)
    left = len(text) - character
    return last, character + round(left * (last - token) / (len(ids) - token))


def _batches(every: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(itertools.islice(every, _TOGETHER)):
        yield batch
