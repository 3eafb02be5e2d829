"""SeqIO's own view: tasks, mixtures and the vocabulary are in its registries and give what the tokenizer gives."""

import dataclasses
import gzip
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader
from cptjax.data.scan import scan
from cptjax.data.sources import Source, find_source
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError

seqio = pytest.importorskip("seqio", reason="needs the `text` extra")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    path = tmp_path_factory.mktemp("tasks") / "a.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "text": f"court {i} 中 \n"}) + "\n" for i in range(8)))
    return find_source("my-source", str(path))


def test_a_task_gives_start_tokens_and_eos(source, byte_level):
    from cptjax.data.tasks import register_task, task_name

    tokenizer = open_tokenizer(str(byte_level))
    scanned = scan(source, tokenizer, SplitSettings(0.0))
    held_out = np.arange(8) % 4 == 1
    register_task(source, tokenizer, dataclasses.replace(scanned, held_out=held_out))
    task = seqio.get_mixture_or_task(task_name("my-source"))
    assert [task.num_input_examples(split) for split in ("train", "validation")] == [6, 2]
    for split in ("train", "validation"):
        found = list(task.get_dataset(split=split, shuffle=False).as_numpy_iterator())
        assert [int(example["ordinal"]) for example in found] == np.flatnonzero(
            held_out == (split == "validation")
        ).tolist()
        for example in found:
            expected = [tokenizer.start, *tokenizer.encode(f"court {example['ordinal']} 中 \n"), tokenizer.eos]
            assert example["targets"].tolist() == expected and example["targets"].dtype == np.int32


def test_a_selection_is_a_task(byte_level, tmp_path):
    from cptjax.data.tasks import register_selection
    from cptjax.data.units import make_units
    from cptjax.selection.output import CORPUS, write_selected

    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "text": f"court {i} and the appeal"}) + "\n" for i in range(6)))
    tokenizer = open_tokenizer(str(byte_level))
    units = make_units(find_source("INPUT", str(path)), tokenizer, "passages", 4, tmp_path / "units")
    kept = np.arange(len(units)) % 2 == 0
    (tmp_path / "selected").mkdir()
    write_selected(tmp_path / "selected" / CORPUS, units, kept)
    with pytest.raises(ConfigurationError, match="no finished selection"):
        register_selection(str(tmp_path / "selected"), str(byte_level))
    (tmp_path / "selected" / "selection.json").write_text("{}")
    name = register_selection(str(tmp_path / "selected"), str(byte_level), "half", SplitSettings(0.0))
    found = seqio.get_mixture_or_task(name).get_dataset(split="train", shuffle=False).as_numpy_iterator()
    texts = [tokenizer.decode(example["targets"][1:-1].tolist()) for example in found]
    assert texts == [text for text, keep in zip(units.texts(), kept, strict=True) if keep]


def test_its_shards_are_chunks_and_give_the_rows_tokens(byte_level, tmp_path, monkeypatch):
    from cptjax.data.tasks import register_task, task_name

    monkeypatch.setattr("cptjax.data.scan.CHUNK_BYTES", 200)
    path = tmp_path / "many.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"text": f"court {i} " + "held § " * (i % 9)}) + "\n" for i in range(60)))
    tokenizer, source = open_tokenizer(str(byte_level)), find_source("many", str(path))
    found = scan(source, tokenizer, SplitSettings(0.3))
    register_task(source, tokenizer, found)
    task = seqio.get_mixture_or_task(task_name("many"))
    shards = len(task.source.list_shards("train"))
    assert shards == len(found.chunks) > 5
    whole = [e["targets"].tolist() for e in task.get_dataset(split="train", shuffle=False).as_numpy_iterator()]
    cut = [
        e["targets"].tolist()
        for index in range(shards)
        for e in task.get_dataset(
            split="train", shuffle=False, shard_info=seqio.ShardInfo(index, shards)
        ).as_numpy_iterator()
    ]
    rows = ensure_rows({"many": str(path)}, str(byte_level), 4096, str(tmp_path / "rows"), validation_fraction=0.3)
    (row,) = (reader := RowReader(rows["many"].train)).pieces(range(len(reader)))
    packed = np.split(row.stream, np.cumsum(row.lengths + 1)[:-1])
    assert whole == cut == [piece.tolist() for piece in packed]


def test_a_mixture_has_the_rates_of_the_blend(source, byte_level):
    from cptjax.data.tasks import register_sources

    sources = dict.fromkeys(("one", "two"), source.files[0])
    registered = register_sources(sources, str(byte_level), {"one": 0.25, "two": 0.75}, split=SplitSettings(0.0))
    assert registered == ["cptjax.one", "cptjax.two", "cptjax.blend"]
    mixture = seqio.get_mixture_or_task("cptjax.blend")
    assert [mixture.get_rate(task) for task in mixture.tasks] == [0.25, 0.75]
    assert [task.name for task in mixture.tasks] == registered[:2]
    assert seqio.get_mixture_or_task("cptjax.one").num_input_examples("train") == 8


def test_the_vocabulary_is_the_tokenizer(byte_level, qwen2):
    import tensorflow as tf

    from cptjax.data.vocabulary import CheckpointVocabulary

    tokenizer = open_tokenizer(str(byte_level))
    vocabulary = CheckpointVocabulary(tokenizer)
    assert (vocabulary.vocab_size, vocabulary.bos_id, vocabulary.eos_id) == (
        tokenizer.size,
        tokenizer.bos,
        tokenizer.eos,
    )
    text = "the court 中华 😀"
    ids = tokenizer.encode(text)
    assert vocabulary.encode(text) == ids == vocabulary.encode_tf(tf.constant(text)).numpy().tolist()
    assert vocabulary.decode(ids) == text == vocabulary.decode_tf(tf.constant(ids)).numpy().decode()
    assert vocabulary == CheckpointVocabulary(open_tokenizer(str(byte_level)))
    assert vocabulary != CheckpointVocabulary(open_tokenizer(str(qwen2)))


@pytest.mark.slow  # three processes that import TensorFlow
def test_a_tfds_data_set_is_a_source_by_its_name(byte_level, tmp_path, monkeypatch):
    """A tiny data set, written by TFDS's own writer, then read by name alone."""
    folder = tmp_path / "tfds" / "tiny_law" / "1.2.0"
    program = f"""
        import tensorflow_datasets as tfds

        name = tfds.core.DatasetIdentity("tiny_law", tfds.core.Version("1.2.0"), {str(folder)!r}, module_name="")
        features = tfds.features.FeaturesDict({{"text": tfds.features.Text()}})
        info = tfds.core.DatasetInfo(builder=name, features=features)
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=20)
        writer.initialize_splits(["train", "test"])
        for split, n in (("train", 30), ("test", 3)):
            writer.add_examples({{split: [{{"text": f"statute {{i}} of the 中 court"}} for i in range(n)]}})
        writer.close_all()
    """
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, timeout=300)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    from cptjax.data.prepare import ensure_rows
    from cptjax.errors import ConfigurationError

    assert Path(tmp_path / "tfds" / "tiny_law" / "1.2.0").exists()
    sources = {"law": "tfds:tiny_law:1.2.0", "test": "tfds:tiny_law:1.2.0#test"}
    found = ensure_rows(sources, str(byte_level), 32, str(tmp_path / "rows"), report=print)
    counts = {name: each.train_manifest.documents + each.validation_manifest.documents for name, each in found.items()}
    assert counts == {"law": 30, "test": 3}
    with pytest.raises(ConfigurationError, match="tfds:tiny_law:9.9.9|data set tiny_law:9.9.9"):
        ensure_rows({"law": "tfds:tiny_law:9.9.9"}, str(byte_level), 32, str(tmp_path / "rows"), report=print)
