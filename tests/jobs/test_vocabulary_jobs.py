"""As commands: another vocabulary loads in `transformers` and is scored alike; a padded run is exported without its padding."""

import json
import shutil

import numpy as np
import pytest
from commands import run_main, short_run

from cptjax.benchmarks.bpe import train_bpe
from cptjax.checkpoints.safetensors import SafetensorsFile
from cptjax.checkpoints.source import open_checkpoint
from cptjax.reporting.folder import FINISHED

pytestmark = pytest.mark.slow
TEXTS = ["Once upon a time there was a little cat.", "  two spaces\n\tand a tab", "Die Würde des Menschen, 人民 😀"]


def trained(root, kind):
    """A new tokenizer: our job's SentencePiece, or a byte-level BPE."""
    if kind == "byte_level":
        return train_bpe([json.__doc__, np.__doc__, *TEXTS] * 20, 600, root / "tokenizer")
    settings = ["SOURCES={'code': 'python:source#3e5'}", "VOCABULARY=700", f"OUTPUT_DIR='{root / 'tokenizer'}'"]
    run_main("gin/jobs/train_tokenizer.gin", *settings)
    return str(root / "tokenizer")


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_another_vocabulary_loads_in_transformers_and_is_scored_alike(kind, shared_data, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    base, out, tokenizer = shared_data / "stories260K", tmp_path / "changed", trained(tmp_path, kind)
    settings = [
        "gin/jobs/change_vocabulary.gin",
        f"CHECKPOINT='{base}'",
        f"TOKENIZER='{tokenizer}'",
        f"OUTPUT_DIR='{out}'",
    ]
    printed = run_main(*settings, "--dry_run")
    assert "copied" in printed and not out.exists()
    assert f"wrote {out}" in run_main(*settings)
    assert "finished; nothing to do" in run_main(*settings)
    assert "never overwrites" in run_main(*settings, "METHOD='mean'", code=2)
    texts, scored = tmp_path / "texts.jsonl", tmp_path / "scored.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    run_main("gin/jobs/score.gin", f"CHECKPOINT='{out}'", f"INPUT='{texts}'", f"OUTPUT='{scored}'")
    model, theirs = (
        transformers.AutoModelForCausalLM.from_pretrained(out),
        transformers.AutoTokenizer.from_pretrained(out),
    )
    for text, line in zip(TEXTS, scored.read_text().splitlines(), strict=True):
        tokens, logprobs = json.loads(line).values()
        assert tokens == theirs(text)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        expected = logits[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()
        np.testing.assert_allclose(logprobs, expected, atol=2e-4)


def test_a_padded_run_trains_resumes_and_is_exported_without_its_padding(shared_data, tmp_path):
    recipe = short_run(shared_data, tmp_path, 4096, 4096)
    cut = ["VOCABULARY_MULTIPLE=120", "MESH={'fsdp': 2, 'tensor': 4}"]
    run, plain, out = tmp_path / "run", tmp_path / "plain", tmp_path / "out"
    printed = run_main(*recipe, *cut, f"OUTPUT_DIR='{run}'", devices=8)
    assert "600, 88 of them padding" in printed
    run_main(*recipe, f"OUTPUT_DIR='{plain}'")
    found, expected = (
        [
            line["loss"]
            for text in (folder / "metrics.jsonl").read_text().splitlines()
            if "loss" in (line := json.loads(text))
        ]
        for folder in (run, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    opened = open_checkpoint(run)
    assert (opened.config.vocabulary, opened.config.padded_vocabulary) == (512, 600)
    (run / FINISHED).unlink()
    shutil.rmtree(run / "checkpoints" / "000000008")
    refused = run_main(*recipe, "VOCABULARY_MULTIPLE=7", f"OUTPUT_DIR='{run}'", code=2)
    assert "padded_vocabulary: 600 there, 518 now" in refused
    assert "resume: from step 4" in run_main(*recipe, f"OUTPUT_DIR='{run}'")  # as it was padded, on another mesh
    run_main("gin/jobs/export.gin", f"CHECKPOINT='{run}'", f"OUTPUT_DIR='{out}'")
    assert SafetensorsFile(out / "model.safetensors").specs["model.embed_tokens.weight"].shape == (512, 64)
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 512
