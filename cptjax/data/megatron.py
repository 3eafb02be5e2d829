"""Megatron's token caches: `prefix.bin` holds ids one after another, `prefix.idx` where each sequence and document ends.

The index (Megatron-LM, `IndexedDataset`): nine bytes "MMIDIDX\\0\\0", version 1 (u64), the code of the ids' dtype (u8), the
number of sequences and of document borders (u64 each), every sequence's length (int32) and byte offset (int64), and the
borders: document d is the sequences border[d] to border[d + 1].
"""

import dataclasses
import functools
import struct
from collections.abc import Iterator

import numpy as np
from etils import epath

from cptjax.data.document import Document
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local

MEGATRON = "megatron:"
_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # 6 and 7 are floats: no ids
_CHECKED, _AGREE = 64, 0.9  # documents that are looked at, and the share whose ids must come back


@dataclasses.dataclass(frozen=True)
class TokenCache:
    """An opened cache: nothing of the ids is read yet but what is asked for.

    ids: all of them, in the file's own dtype; starts, ends: of each document, int64.
    """

    prefix: str
    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def document(self, number: int) -> np.ndarray:
        """The ids of a document, int64."""
        return self.ids[self.starts[number] : self.ends[number]].astype(np.int64)


def cache_files(prefix: str) -> tuple[str, str]:
    """The two files of the cache at `prefix` (its name without .bin and .idx, or either file)."""
    prefix = prefix.removesuffix(".idx").removesuffix(".bin")
    return f"{prefix}.bin", f"{prefix}.idx"


def open_cache(prefix: str) -> TokenCache:
    """Opens a cache and checks that its index describes its ids, every one of them once.

    Raises:
        CptjaxError: the index is damaged, or does not belong to the ids.
        ConfigurationError: it is no cache of text.
    """
    binary, index = cache_files(prefix)
    raw = epath.Path(index).read_bytes()
    if len(raw) < _HEADER.size or not raw.startswith(_MAGIC):
        raise ConfigurationError(f"{index} is no index of a Megatron token cache: it does not begin with MMIDIDX.")
    _, version, code, sequences, borders = _HEADER.unpack_from(raw)
    if version != 1 or code not in _DTYPES:
        raise ConfigurationError(
            f"{index} has version {version} and dtype code {code}: version 1 of integer ids is read."
        )
    expected = _HEADER.size + 12 * sequences + 8 * borders
    if len(raw) != expected:
        more = " (a multimodal cache has more)" if len(raw) > expected else ""
        raise CptjaxError(f"{index} is damaged: {len(raw):,} bytes, its header says {expected:,}{more}.")
    lengths = np.frombuffer(raw, "<i4", sequences, _HEADER.size).astype(np.int64)
    offsets = np.frombuffer(raw, "<i8", sequences, _HEADER.size + 4 * sequences)
    border = np.frombuffer(raw, "<i8", borders, _HEADER.size + 12 * sequences)
    dtype = np.dtype(_DTYPES[code])
    ends = np.cumsum(lengths)
    if (lengths < 0).any() or not np.array_equal(offsets, (ends - lengths) * dtype.itemsize):
        raise CptjaxError(f"{index} is damaged: its sequences do not lie one after another in {binary}.")
    if not borders or border[0] != 0 or border[-1] != sequences or (np.diff(border) < 0).any():
        raise CptjaxError(f"{index} is damaged: its document borders do not go from 0 to {sequences}, ascending.")
    path = epath.Path(binary)
    if path.stat().length % dtype.itemsize:
        raise CptjaxError(f"{binary} is damaged: {path.stat().length:,} bytes are no whole number of {dtype.name} ids.")
    ids = (
        np.memmap(binary, dtype, "r")
        if is_local(binary) and path.stat().length
        else np.frombuffer(path.read_bytes(), dtype)
    )
    total = int(ends[-1]) if sequences else 0
    if len(ids) != total:
        raise CptjaxError(f"{binary} holds {len(ids):,} ids; {index} says {total:,}. One of them is of another cache.")
    at = np.concatenate([[0], ends])[border]
    return TokenCache(prefix, ids, at[:-1], at[1:])


def _checked_cache(prefix: str, tokenizer: Tokenizer) -> TokenCache:
    """The cache, opened and checked once in a process, however many of its chunks are read there."""
    files = [epath.Path(file).stat() for file in cache_files(prefix)]
    return _checked(prefix, tokenizer, tuple((file.length, file.mtime) for file in files))


@functools.lru_cache(1)
def _checked(prefix: str, tokenizer: Tokenizer, files: tuple) -> TokenCache:
    """`files` is what the cache's files are known by: others are opened anew."""
    cache = open_cache(prefix)
    refuse_another_vocabulary(cache, tokenizer)
    return cache


def cached_documents(prefix: str, tokenizer: Tokenizer, first: int = 0) -> Iterator[Document]:
    """The documents of the cache from number `first` on: their ids (`Document.tokens`), written out as text too.

    Raises:
        ConfigurationError: the cache was not made with this tokenizer.
        CptjaxError: a damaged cache.
    """
    cache = _checked_cache(prefix, tokenizer)
    name = epath.Path(cache_files(prefix)[0]).name.removesuffix(".bin")
    for number in range(first, len(cache)):
        ids = _inner(cache.document(number), tokenizer)
        text = tokenizer.decode(ids.tolist())
        yield Document(f"{name}:{number}", text, len(text.encode("utf-8")), {}, ids)


def refuse_another_vocabulary(cache: TokenCache, tokenizer: Tokenizer) -> None:
    """Raises ConfigurationError where ids are beyond the tokenizer's, or do not come back from the text they stand for.

    A cache names no vocabulary. That ids are the tokenizer's own is seen by writing documents out and encoding the text
    again: the same ids come back, which another vocabulary's do not.
    """
    highest, lowest = (int(cache.ids.max()), int(cache.ids.min())) if len(cache.ids) else (0, 0)
    if lowest < 0 or highest >= tokenizer.size:
        raise ConfigurationError(
            f"{cache.prefix}: its ids go from {lowest} to {highest:,}, the tokenizer {tokenizer.name} has {tokenizer.size:,}.\n"
            "  It was made with another vocabulary."
        )
    numbers = np.unique(np.linspace(0, len(cache) - 1, _CHECKED).astype(int)) if len(cache) else []
    documents = [ids for number in numbers if len(ids := _inner(cache.document(number), tokenizer))]
    same = sum(tokenizer.encode(tokenizer.decode(ids.tolist())) == ids.tolist() for ids in documents)
    if same < _AGREE * len(documents):
        raise ConfigurationError(
            f"{cache.prefix}: of {len(documents)} documents only {same} have the ids that the tokenizer {tokenizer.name} gives "
            "their text.\n  The cache was made with another vocabulary; prepare its text instead."
        )


def _inner(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Without BOS at the beginning and EOS at the end, which a cache may have or not."""
    if len(ids) and tokenizer.bos is not None and ids[0] == tokenizer.bos:
        ids = ids[1:]
    return ids[:-1] if len(ids) and ids[-1] == tokenizer.eos else ids
