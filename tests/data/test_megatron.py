"""Megatron's caches, written here by what its format says and nothing of ours, give the rows of their text."""

import json
import struct

import numpy as np
import pytest

from cptjax.data.megatron import open_cache
from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader
from cptjax.data.scan import survey
from cptjax.data.sources import documents, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizing import Work, tokenize_chunks
from cptjax.errors import ConfigurationError, CptjaxError

TEXTS = [f"Article {i}: the {'court ' * (i % 7)}held § {i * i} 中华 {i}." for i in range(50)]
CODES = {"u1": 1, "i1": 2, "i2": 3, "i4": 4, "i8": 5, "u2": 8}


def write_cache(prefix, sequences, borders, dtype="u2"):
    """As Megatron-LM's IndexedDatasetBuilder lays it out."""
    with open(f"{prefix}.bin", "wb") as file:
        for ids in sequences:
            file.write(np.array(ids, f"<{dtype}").tobytes())
    lengths = [len(ids) for ids in sequences]
    offsets = np.cumsum([0, *lengths[:-1]]) * np.dtype(dtype).itemsize
    with open(f"{prefix}.idx", "wb") as file:
        file.write(b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", CODES[dtype]))
        file.write(struct.pack("<Q", len(lengths)) + struct.pack("<Q", len(borders)))
        file.write(np.array(lengths, "<i4").tobytes() + np.array(offsets, "<i8").tobytes())
        file.write(np.array(borders, "<i8").tobytes())
    return str(prefix)


@pytest.fixture
def tokenizer(byte_level):
    return open_tokenizer(str(byte_level))


@pytest.fixture
def encoded(tokenizer):
    return [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize("dtype", ["u2", "i4", "i8"])
@pytest.mark.parametrize("ends", ["bare", "eos", "bos and eos"])
@pytest.mark.parametrize("sentences", [1, 3])
def test_a_cache_gives_the_rows_of_its_text(dtype, ends, sentences, tokenizer, encoded, byte_level, tmp_path):
    bos = [tokenizer.bos] if ends == "bos and eos" and tokenizer.bos is not None else []
    eos = [] if ends == "bare" else [tokenizer.eos]
    sequences, borders = [], [0]
    for ids in encoded:  # a document may be several sequences, its sentences
        whole = [*bos, *ids, *eos]
        cuts = np.linspace(0, len(whole), sentences + 1).astype(int)
        sequences += [whole[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
        borders.append(len(sequences))
    prefix = write_cache(tmp_path / "cache", sequences, borders, dtype)
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"id": f"cache:{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    sources = {"cache": f"megatron:{prefix}", "text": str(path)}
    made = ensure_rows(sources, str(byte_level), 32, str(tmp_path / "rows"), validation_fraction=0.2, report=print)
    for split in ("train", "validation"):
        one, other = (RowReader(getattr(made[name], split)) for name in ("cache", "text"))
        assert one.manifest.content == other.manifest.content and len(one) > 5


def test_ids_of_another_vocabulary_are_refused(tokenizer, encoded, tmp_path):
    too_high = write_cache(tmp_path / "high", [[tokenizer.size]], [0, 1])
    shifted = [[(i + 37) % 200 for i in ids] for ids in encoded]
    other = write_cache(tmp_path / "other", shifted, list(range(len(shifted) + 1)))
    for prefix, message in ((too_high, "its ids go from"), (other, "made with another vocabulary")):
        with pytest.raises(ConfigurationError, match=message):
            list(documents(find_source("a", f"megatron:{prefix}"), tokenizer))


def test_what_is_damaged_or_no_cache_is_named(encoded, tmp_path):
    prefix = write_cache(tmp_path / "cache", encoded, list(range(len(encoded) + 1)))
    index, binary = tmp_path / "cache.idx", tmp_path / "cache.bin"
    good, ids = index.read_bytes(), binary.read_bytes()
    assert len(open_cache(prefix)) == len(encoded)
    for content, error, message in (
        (b"PK\x03\x04" + good, ConfigurationError, "does not begin with MMIDIDX"),
        (good[:-1], CptjaxError, "its header says"),
        (good + b"\x00" * len(encoded), CptjaxError, "multimodal"),
        (good[:-8] + struct.pack("<q", 3), CptjaxError, "document borders"),
        (good[:34] + struct.pack("<i", 1) + good[38:], CptjaxError, "one after another"),
        (good[:17] + bytes([6]) + good[18:], ConfigurationError, "dtype code 6"),
    ):
        index.write_bytes(content)
        with pytest.raises(error, match=message):
            open_cache(prefix)
    index.write_bytes(good)
    binary.write_bytes(ids[:-2])
    with pytest.raises(CptjaxError, match="of another cache"):
        open_cache(prefix)
    binary.unlink()
    with pytest.raises(ConfigurationError, match="there is no .*cache.bin"):
        find_source("a", f"megatron:{prefix}")


def test_a_cache_cut_off_within_an_id_is_damaged(encoded, tmp_path):
    prefix = write_cache(tmp_path / "cut", encoded, range(len(encoded) + 1))
    raw = (tmp_path / "cut.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(raw[:-1])
    with pytest.raises(CptjaxError, match="no whole number of uint16 ids"):
        open_cache(prefix)


def test_a_cache_is_opened_and_checked_once_however_many_chunks_it_has(
    encoded, tokenizer, byte_level, tmp_path, monkeypatch
):
    opened = []
    monkeypatch.setattr("cptjax.data.megatron.open_cache", lambda prefix: opened.append(prefix) or open_cache(prefix))
    monkeypatch.setattr("cptjax.data.scan.CHUNK_BYTES", 200)
    source = find_source("law", "megatron:" + write_cache(tmp_path / "law", encoded, range(len(encoded) + 1)))
    read = survey(source, tokenizer)
    tokenize_chunks(Work(source, str(byte_level)), read.chunks, tmp_path, 1, lambda *heard: None)
    assert len(read.chunks) > 5 and len(opened) <= 2  # by the survey's tokenizer, and by the worker's own
