"""Text to rows in a child process, on all cores: exact, made once, refused with the child's own words."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader, read_manifest
from cptjax.data.splits import same_text
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError

TEXTS = [f"Article {i}: the {'court ' * (i % 7)}held § {i * i} 中华 {i}." for i in range(60)]
TEXTS += [TEXTS[3].upper(), "  " + TEXTS[4] + "\n", TEXTS[5], "special <|end_of_text|> inside", "\u0000 \ufeff 😀"]


def corpus(path: Path, texts=TEXTS) -> str:
    with path.open("w", encoding="utf-8") as file:
        for i, text in enumerate(texts):
            file.write(json.dumps({"id": f"d{i}", "text": text, "part": i % 3}) + "\n")
    return str(path)


def texts_of(folder: str, tokenizer) -> dict[str, str]:
    """The documents of a folder of rows, put together again from its pieces and decoded."""
    reader = RowReader(folder)
    targets: dict[int, list[int]] = {}
    for row in reader.pieces(range(len(reader))):
        at = 0
        for n, ordinal in zip(row.lengths, row.ordinals, strict=True):
            piece = row.stream[at : at + n + 1].tolist()
            seen = targets.setdefault(int(ordinal), [tokenizer.start])
            assert piece[0] == seen[-1]  # the start, or the last token of the former piece
            seen += piece[1:]
            at += n + 1
    names = [document["id"] for document in reader.documents(sorted(targets))]
    found = {}
    for name, tokens in zip(names, (targets[i] for i in sorted(targets)), strict=True):
        assert tokens[0] == tokenizer.start and tokens[-1] == tokenizer.eos
        found[name] = tokenizer.decode(tokens[1:-1])
    return found


@pytest.fixture(scope="module")
def prepared(byte_level, tmp_path_factory):
    """One corpus, prepared once for the tests of this file: (result, sources, root, lines reported)."""
    folder = tmp_path_factory.mktemp("prepared")
    sources = {"law": corpus(folder / "law.jsonl"), "web": [corpus(folder / "web.jsonl", TEXTS[:10])]}
    lines: list[str] = []
    root = str(folder / "rows")
    result = ensure_rows(sources, str(byte_level), 32, root, validation_fraction=0.2, report=lines.append)
    return result, sources, root, lines


def test_every_text_comes_back_from_the_rows(prepared, byte_level):
    law, tokenizer = prepared[0]["law"], open_tokenizer(str(byte_level))
    train, validation = texts_of(law.train, tokenizer), texts_of(law.validation, tokenizer)
    assert {**train, **validation} == {f"d{i}": text for i, text in enumerate(TEXTS)}
    assert not {same_text(text) for text in train.values()} & {same_text(text) for text in validation.values()}
    for manifest, found in ((law.train_manifest, train), (law.validation_manifest, validation)):
        assert manifest.documents == len(found)
        assert manifest.bytes == sum(len(text.encode()) for text in found.values())
        assert manifest.tokens == sum(len(tokenizer.encode(text)) + 1 for text in found.values())
        assert manifest.rows == -(-manifest.tokens // 32)
        assert (manifest.start, manifest.eos) == (tokenizer.bos, tokenizer.eos)
    documents = RowReader(law.train).documents(range(law.train_manifest.documents))
    assert all(document["metadata"] == {"part": int(document["id"][1:]) % 3} for document in documents)
    assert law.info.rows == law.train_manifest.rows and law.info.fingerprint == law.train_manifest.fingerprint


def test_rows_are_made_once_and_shared(prepared, byte_level, tmp_path):
    result, sources, root, lines = prepared
    assert any("law train" in line for line in lines)
    moved = {name: str(tmp_path / f"{name}.jsonl") for name in sources}
    for name, path in moved.items():
        shutil.copy(sources[name] if name == "law" else sources[name][0], path)
    again: list[str] = []
    for given in (sources, moved):
        found = ensure_rows(given, str(byte_level), 32, root, validation_fraction=0.2, report=again.append)
        assert found == result
    assert not again


def test_a_second_preparation_gives_the_same_rows(prepared, byte_level, tmp_path):
    result, sources, _, _ = prepared
    other = ensure_rows(
        {"law": sources["law"]}, str(byte_level), 32, str(tmp_path), validation_fraction=0.2, report=lambda line: None
    )
    assert other["law"].train_manifest.fingerprint == result["law"].train_manifest.fingerprint
    assert other["law"].validation_manifest.fingerprint == result["law"].validation_manifest.fingerprint


def test_the_manifest_names_what_the_tokenizer_loses(prepared, qwen2, tmp_path):
    result, sources, _, lines = prepared
    assert result["law"].train_manifest.tokenizer["loses"] is None
    assert not any("loses" in line for line in lines)
    told: list[str] = []
    other = ensure_rows({"law": sources["law"]}, str(qwen2), 32, str(tmp_path), report=told.append)["law"]
    assert other.train_manifest.tokenizer["loses"] == other.validation_manifest.tokenizer["loses"] == "NFC"
    assert any(f"the tokenizer {qwen2} loses of the text: NFC" in line for line in told)


def test_rows_made_before_the_manifest_said_what_is_lost_are_read(prepared, tmp_path):
    train = shutil.copytree(prepared[0]["law"].train, tmp_path / "train")
    written = json.loads((train / "manifest.json").read_text())
    del written["tokenizer"]["loses"]
    (train / "manifest.json").write_text(json.dumps(written))
    assert read_manifest(str(train)).fingerprint == prepared[0]["law"].train_manifest.fingerprint


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"text": "good"}\n{"text": 5}\n', r'bad.jsonl, line 2 has no text: its "text" is int'),
        ('{"text": "good"}\nnot json\n', "bad.jsonl, line 2 is not JSON"),
        ("", "source 'bad' is empty: there is no document with text in"),
        ('{"text": ""}\n', "source 'bad' is empty"),
    ],
)
def test_a_bad_corpus_is_refused_as_the_child_said_and_leaves_nothing(content, complaint, byte_level, tmp_path):
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        ensure_rows({"bad": str(tmp_path / "bad.jsonl")}, str(byte_level), 32, str(tmp_path / "rows"), report=print)
    assert len(str(refused.value).splitlines()) <= 4
    assert not list((tmp_path / "rows").glob("*")) if (tmp_path / "rows").exists() else True


def test_what_is_wrong_before_any_text_is_read_is_refused(byte_level, tmp_path):
    good = {"law": corpus(tmp_path / "law.jsonl")}
    for sources, tokenizer, length, complaint in [
        ({}, byte_level, 32, "no sources"),
        (good, byte_level, 0, "SEQUENCE_LENGTH is 0"),
        (good, tmp_path, 32, "holds no tokenizer"),
        ({"law": str(tmp_path / "nothing.jsonl")}, byte_level, 32, "there is no file or folder"),
    ]:
        with pytest.raises(ConfigurationError, match=complaint):
            ensure_rows(sources, str(tokenizer), length, str(tmp_path / "rows"))
    bare = tmp_path / "bare"
    shutil.copytree(byte_level, bare)
    (bare / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigurationError, match="has no EOS token"):
        ensure_rows(good, str(bare), 32, str(tmp_path / "rows"))


def test_a_child_that_dies_is_told_with_its_last_words(byte_level, tmp_path, monkeypatch):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho 'out of memory' >&2\nexit 9\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(CptjaxError, match=r"ended with status 9:\n  out of memory"):
        ensure_rows({"law": corpus(tmp_path / "a.jsonl")}, str(byte_level), 32, str(tmp_path / "rows"), report=print)


def test_without_the_text_extra_the_refusal_says_what_to_install(byte_level, tmp_path, monkeypatch):
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "pyarrow.py").write_text("raise ModuleNotFoundError('pyarrow', name='pyarrow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigurationError, match=r"'pyarrow', which is not installed.\n.*cptjax\[text\]"):
        ensure_rows({"law": str(tmp_path / "a.parquet")}, str(byte_level), 32, str(tmp_path / "rows"), report=print)


@pytest.mark.slow
def test_a_killed_preparation_leaves_nothing_that_counts(byte_level, tmp_path):
    path, root = corpus(tmp_path / "law.jsonl", [f"{i} " + "the court " * 800 for i in range(1500)]), tmp_path / "rows"
    program = f"""
        from cptjax.data.prepare import ensure_rows
        ensure_rows({{"law": {path!r}}}, {str(byte_level)!r}, 32, {str(root)!r})
    """
    project = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=project, start_new_session=True, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(root.glob(".law-*.unfinished/tokens-?????")):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(parent.pid, signal.SIGKILL)  # parent and child at once
    parent.wait()
    assert not list(root.glob("law-*")) and list(root.glob(".law-*"))
    kept = {path: path.stat().st_mtime_ns for path in root.glob(".law-*.unfinished/tokens-?????")}
    lines: list[str] = []
    result = ensure_rows({"law": path}, str(byte_level), 32, str(root), report=lines.append)["law"]
    assert kept and any("going on with what was prepared before" in line for line in lines)
    assert result.train_manifest.documents + result.validation_manifest.documents == 1500
    assert not list(root.glob(".law-*"))  # nothing of what is not finished is left
    whole = ensure_rows({"law": path}, str(byte_level), 32, str(tmp_path / "whole"), report=print)["law"]
    assert whole.train_manifest.fingerprint == result.train_manifest.fingerprint


def test_a_corpus_of_one_text_trains_whole(byte_level, tmp_path):
    path = corpus(tmp_path / "a.jsonl", ["the same", "THE  same"])
    found = ensure_rows({"law": path}, str(byte_level), 32, str(tmp_path / "rows"), report=print)["law"]
    assert found.validation is None and found.validation_manifest is None and found.train_manifest.documents == 2


def test_real_text_with_a_real_tokenizer_is_counted_to_the_byte(shared_data, tmp_path):
    import gzip

    path = shared_data / "corpora" / "portuguese_law.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    found = ensure_rows({"law": str(path)}, str(shared_data / "stories260K"), 256, str(tmp_path), report=print)["law"]
    manifests = (found.train_manifest, found.validation_manifest)
    assert sum(m.bytes for m in manifests) == sum(len(text.encode()) for text in texts)
    assert sum(m.documents for m in manifests) == sum(map(bool, texts))
    tokenizer = open_tokenizer(str(shared_data / "stories260K"))
    reader = RowReader(found.validation)
    batch = reader.read(np.arange(len(reader)))
    assert batch["weights"].sum() == found.validation_manifest.tokens
    decoded = texts_of(found.validation, tokenizer)
    assert len(decoded) == found.validation_manifest.documents and set(decoded.values()) <= set(texts)


def test_each_source_gets_its_own_text_whatever_its_name(byte_level, tmp_path):
    tokenizer = open_tokenizer(str(byte_level))
    texts = {"zebra": TEXTS[:8], "apple": TEXTS[10:13], "mango": TEXTS[20:25]}  # SeqIO sorts tasks by name; we do not
    sources = {name: corpus(tmp_path / f"{name}.jsonl", some) for name, some in texts.items()}
    found = ensure_rows(
        sources, str(byte_level), 32, str(tmp_path / "rows"), validation_fraction=0, report=lambda _: None
    )
    for name, some in texts.items():
        assert list(texts_of(found[name].train, tokenizer).values()) == some
        assert found[name].name == found[name].train_manifest.source == name
