"""Corpora to measure with: rows of random ids, and text in as many distinct variants as are wanted."""

import itertools
import json
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cptjax.data.packing import pack
from cptjax.data.rows import RowWriter
from cptjax.data.sources import documents, find_source

_VOCABULARY = 32000
_DOCUMENT = 1500  # tokens, on the average
_WORDS = 20_000  # different ones in synthetic text


def write_random_rows(folder: str, tokens: float, length: int, seed: int) -> None:
    """Packed rows of about so many tokens, of documents with lengths drawn from an exponential distribution."""
    rng = np.random.default_rng(seed)
    writer = RowWriter(folder, length, _VOCABULARY)

    def drawn() -> Iterator[tuple[int, np.ndarray]]:
        while writer.bytes < 4 * tokens:
            n = 1 + int(rng.exponential(_DOCUMENT))
            ids = np.concatenate([[1], rng.integers(3, _VOCABULARY, n - 1), [2]]).astype(np.uint32)
            yield writer.document(f"document-{writer.documents}", 4 * n, n, {}), ids

    for row in pack(drawn(), length):
        writer.row(row)
    tokenizer = {"name": "random", "fingerprint": "random", "size": _VOCABULARY}
    writer.finish(source="random", split="train", files=(), tokenizer=tokenizer, start=1, eos=2, settings={})


def read_texts(text: str | None, most: float) -> list[str]:
    """The first documents of a file, or random words where there is none, of about so many bytes together."""
    found, size = [], 0
    read = random_texts() if text is None else (document.text for document in documents(find_source("text", text)))
    for each in read:
        found.append(each)
        size += len(each)
        if size >= most:
            break
    return found


def random_texts() -> Iterator[str]:
    """Documents without end, of words that are drawn as often as Zipf says."""
    rng = np.random.default_rng(0)
    letters = np.array(list(string.ascii_lowercase))
    words = ["".join(rng.choice(letters, size=n)) for n in rng.integers(2, 10, _WORDS)]
    share = 1 / np.arange(1, _WORDS + 1)
    for _ in itertools.count():
        yield " ".join(words[i] for i in rng.choice(_WORDS, size=800, p=share / share.sum()))


def write_variants(texts: list[str], variants: int, path: Path) -> None:
    """Every text `variants` times, its letters shifted each time so that no two variants are near-duplicates."""
    lower, upper = string.ascii_lowercase, string.ascii_uppercase
    with path.open("w", encoding="utf-8") as stream:
        for by in range(variants):
            shifted = str.maketrans(lower + upper, lower[by:] + lower[:by] + upper[by:] + upper[:by])
            for number, text in enumerate(texts):
                record = {"id": f"{by}-{number}", "text": text.translate(shifted)}
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
