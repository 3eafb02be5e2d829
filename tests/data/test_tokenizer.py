"""A checkpoint's tokenizer: the ids of `transformers`, the special ids its files say, and clear refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import LLAMA_CLASS, ODD_TEXTS, sentencepiece_folder

from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError

any_text = st.lists(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from([*" \n\t▁éab中。§", "</s>", "<s>", "<unk>", "<|im_end|>", "  ", "the ", " court"]),
    ),
    max_size=40,
).map("".join)


def same_ids(folder: Path, texts: list[str]) -> None:
    transformers = pytest.importorskip("transformers", reason="parity is with transformers, on Python 3.11")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(str(folder)), open_tokenizer(str(folder))
    for text in texts:
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids, repr(text)
    assert ours.encode_batch(texts) == [ours.encode(text) for text in texts]
    assert (ours.bos, ours.eos) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.adds_bos == (theirs("a").input_ids[:1] == [theirs.bos_token_id])


@pytest.mark.parametrize("kind", ["byte_level", "qwen2", "llama"])
def test_ids_are_those_of_transformers(kind, request):
    same_ids(request.getfixturevalue(kind), ODD_TEXTS)


@pytest.mark.parametrize("settings", [{"legacy": True}, {"legacy": False}, {"add_bos_token": False}])
def test_ids_are_those_of_transformers_for_the_settings_of_a_llama_tokenizer(settings, llama, tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(llama, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({**LLAMA_CLASS, **settings}))
    same_ids(folder, ODD_TEXTS)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_tokenizer_json_of_the_llama_class_has_the_ids_of_transformers(legacy, llama, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "tokenizer"
    transformers.AutoTokenizer.from_pretrained(str(llama)).save_pretrained(str(folder))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"], config["legacy"] = "LlamaTokenizer", legacy
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    same_ids(folder, ODD_TEXTS)


def test_ids_are_those_of_transformers_on_any_text(llama, qwen2):
    transformers = pytest.importorskip("transformers")
    pairs = [(transformers.AutoTokenizer.from_pretrained(str(f)), open_tokenizer(str(f))) for f in (llama, qwen2)]

    @given(any_text)
    @settings(max_examples=200, deadline=None)
    def check(text):
        for theirs, ours in pairs:
            assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids

    check()


def test_the_stories_model_reads_its_own_story_as_it_wrote_it(shared_data):
    """Its greedy ids, decoded, encode to themselves: with SentencePiece's space before the first word.

    (That is how it was trained. `transformers` 5 leaves the space out for a folder that, like this one, has no
    tokenizer_config.json.)
    """
    tokenizer = open_tokenizer(str(shared_data / "stories260K"))
    ids = list(map(int, (shared_data / "stories260K" / "greedy_256_tokens.txt").read_text().split()))
    assert tokenizer.encode(tokenizer.decode(ids[1:])) == ids[1:]
    assert tokenizer.decode(ids).startswith("<s>Once upon a time")
    assert (tokenizer.size, tokenizer.bos, tokenizer.eos, tokenizer.start, tokenizer.adds_bos) == (512, 1, 2, 1, True)


def test_the_stories_model_has_the_ids_of_the_llama_tokenizer(shared_data):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaTokenizer.from_pretrained(str(shared_data / "stories260K"))
    ours = open_tokenizer(str(shared_data / "stories260K"))
    for text in ODD_TEXTS:
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids, repr(text)


@pytest.mark.parametrize("kind", ["byte_level", "qwen2", "llama"])
def test_decoding_gives_the_text_back(kind, request):
    tokenizer = open_tokenizer(str(request.getfixturevalue(kind)))
    for text in ["hello world", "naïve 中文 😀", "two  spaces\n\ttab", "a</s> b"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("folds", [False, True])
def test_a_unigram_sentencepiece_model_keeps_its_own_ids(folds, tmp_path):
    import sentencepiece

    folder = sentencepiece_folder(tmp_path / "unigram", None, model_type="unigram", remove_extra_whitespaces=folds)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = open_tokenizer(str(folder / "tokenizer.model"))
    for text in ODD_TEXTS:
        if (folds or not text.startswith((" ", "▁"))) and "<" not in text:
            assert ours.encode(text) == theirs.encode(text)


def test_a_text_begins_with_eos_where_there_is_no_bos(qwen2):
    tokenizer = open_tokenizer(str(qwen2))
    assert tokenizer.bos is None and tokenizer.start == tokenizer.eos is not None and not tokenizer.adds_bos


def test_the_fingerprint_follows_the_ids_and_not_the_place(llama, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(llama, moved)
    here = open_tokenizer(str(llama)).fingerprint
    assert open_tokenizer(str(moved)).fingerprint == here
    (moved / "tokenizer_config.json").write_text(json.dumps({**LLAMA_CLASS, "chat_template": "{{ messages }}"}))
    assert open_tokenizer(str(moved)).fingerprint == here
    (moved / "tokenizer_config.json").write_text(json.dumps({**LLAMA_CLASS, "legacy": True}))
    assert open_tokenizer(str(moved)).fingerprint != here


def test_special_ids_come_from_the_first_file_that_says(byte_level, tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(byte_level, folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 1]}))
    assert open_tokenizer(str(folder)).eos == 7
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert open_tokenizer(str(folder)).eos == 5
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|end_of_text|>"}}))
    assert open_tokenizer(str(folder)).eos == 1


def test_what_is_no_tokenizer_is_refused(byte_level, tmp_path):
    with pytest.raises(ConfigurationError, match="there is no tokenizer at .*nowhere"):
        open_tokenizer(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="holds no tokenizer: neither tokenizer.json nor tokenizer.model"):
        open_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="tokenizer.model cannot be read as a tokenizer"):
        open_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="tokenizer.json cannot be read as a tokenizer"):
        open_tokenizer(str(tmp_path))
    shutil.copy(byte_level / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<nope>"}))
    with pytest.raises(ConfigurationError, match="names '<nope>' as eos_token"):
        open_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigurationError, match="tokenizer_config.json is not JSON"):
        open_tokenizer(str(tmp_path))


def test_no_tensorflow_is_imported(llama):
    program = (
        "import sys; from cptjax.data.tokenizer import open_tokenizer; "
        f"open_tokenizer({str(llama)!r}).encode('a'); "
        "import cptjax.data.prepare, cptjax.data.plan, cptjax.data.blend, cptjax.data.rows; "
        "print([m for m in ('tensorflow', 'seqio', 'transformers', 'torch', 'jax') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
