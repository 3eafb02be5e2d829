"""In and out: what `score` says of a checkpoint is what `transformers` says of the exported folder."""

import json
import shutil

import numpy as np
import pytest
from commands import run_main

pytestmark = pytest.mark.slow
TEXTS = ["Once upon a time", " Lily saw  a cat.\n", "日本語 und Ümläute", "x", ""]


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scores(tmp_path, checkpoint, source, *settings, devices=1):
    output = tmp_path / f"scores_{len(list(tmp_path.iterdir()))}.jsonl"
    given = [f"CHECKPOINT='{checkpoint}'", f"INPUT='{source}'", f"OUTPUT='{output}'", *settings]
    run_main("gin/jobs/score.gin", *given, devices=devices)
    return read_lines(output)


def test_the_real_checkpoint_scores_its_own_greedy_text(shared_data, tmp_path):
    tokens = [int(t) for t in (shared_data / "stories260K" / "greedy_256_tokens.txt").read_text().split()]
    source = write_lines(tmp_path / "in.jsonl", [{"tokens": tokens}])
    (line,) = scores(tmp_path, shared_data / "stories260K", source)
    assert line["tokens"] == tokens and len(line["logprobs"]) == len(tokens) - 1 == 256
    assert -np.mean(line["logprobs"]) == pytest.approx(0.45735, abs=1e-5)


def test_an_exported_run_scores_in_transformers_as_here(finished_run, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    run, _ = finished_run
    exported = tmp_path / "exported"
    run_main("gin/jobs/export.gin", f"CHECKPOINT='{run}'", f"OUTPUT_DIR='{exported}'", "SHARD_BYTES=3e5")
    assert max(file.stat().st_size for file in exported.glob("model-*.safetensors")) < 3e5 + 5_000  # and a header
    source = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    ours = scores(tmp_path, run, source, devices=8)
    assert ours == scores(tmp_path, exported, source, devices=8)  # the same weights, read back

    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    for text, line in zip(TEXTS, ours, strict=True):
        assert line["tokens"] == tokenizer(text)["input_ids"]
        with torch.no_grad():
            table = torch.log_softmax(model(torch.tensor([line["tokens"]])).logits[0].double(), -1)
        theirs = [table[i, token].item() for i, token in enumerate(line["tokens"][1:])]
        assert line["logprobs"] == pytest.approx(theirs, abs=1e-4)


def test_an_export_knows_its_own_and_nothing_else(shared_data, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "exported"
    shutil.copytree(shared_data / "stories260K", base)
    settings = ["gin/jobs/export.gin", f"CHECKPOINT='{base}'", f"OUTPUT_DIR='{folder}'"]
    run_main(*settings)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("exported")] == ["exported"]
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert "finished; nothing to do" in run_main(*settings)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    printed = run_main(*settings, "DTYPE='bfloat16'", code=2)
    assert "an export never overwrites" in printed and f"another export, of {base} (float32)" in printed
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # the same path, other weights
    (base / "model.safetensors").write_bytes(weights)
    assert "or of what that was before" in run_main(*settings, code=2)
    (folder / "cptjax_export.json").unlink()
    assert "something that no export of ours finished" in run_main(*settings, code=2)


def test_converted_first_it_is_the_same_checkpoint(shared_data, tmp_path):
    converted = tmp_path / "converted"
    run_main(
        "gin/jobs/convert.gin", f"HF_CHECKPOINT='{shared_data / 'stories260K'}'", f"OUTPUT_DIR='{converted}'", devices=8
    )
    (converted / "finished.json").unlink()  # killed before it was written
    base = tmp_path / "moved"
    shutil.copytree(shared_data / "stories260K", base)
    again = run_main("gin/jobs/convert.gin", f"HF_CHECKPOINT='{base}'", f"OUTPUT_DIR='{converted}'")
    assert "nothing to do" in again and (converted / "finished.json").exists()
    source = write_lines(
        tmp_path / "in.jsonl", [{"tokens": [1, 403, 407, 261]}, {"tokens": [7]}, {"text": "A dog ran."}]
    )
    direct = scores(tmp_path, shared_data / "stories260K", source)
    assert scores(tmp_path, converted, source) == direct
    assert scores(tmp_path, converted / "checkpoints" / "000000000", source) == direct
    assert direct[1]["logprobs"] == []


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"tokens": [1, 2', "line 2 is not JSON"),
        ('{"tokens": [1, 512]}', "line 2: token 512 is not in the model's vocabulary of 512"),
        ('{"tokens": [1, 2.0]}', "line 2: tokens is not a list of whole numbers"),
        ('{"txt": "hello"}', "line 2: a line is"),
        ('{"text": 5}', "line 2: text is int"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named_and_nothing_is_written(shared_data, tmp_path, line, message):
    source = tmp_path / "in.jsonl"
    source.write_text('{"tokens": [1, 2]}\n' + line + "\n")
    settings = [f"CHECKPOINT='{shared_data / 'stories260K'}'", f"INPUT='{source}'", f"OUTPUT='{tmp_path / 'out'}'"]
    printed = run_main("gin/jobs/score.gin", *settings, code=2)
    assert message in printed and "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_convert_checks_the_real_checkpoint_against_transformers_before_it_writes(shared_data, tmp_path):
    pytest.importorskip("transformers")
    run = tmp_path / "run"
    given = [f"HF_CHECKPOINT='{shared_data / 'stories260K'}'", f"OUTPUT_DIR='{run}'"]
    given += ["CHECK=True", "CHECK_ROWS=2", "CHECK_LENGTH=64"]
    assert "would compare it with transformers on 2 rows" in run_main("gin/jobs/convert.gin", *given, "--dry_run")
    assert not run.exists()
    printed = run_main("gin/jobs/convert.gin", *given)
    assert "transformers, 128 tokens of python:documentation: the largest difference" in printed
    held = json.loads((run / "finished.json").read_text(encoding="utf-8"))["transformers"]
    assert held["tokens"] == 128 and held["largest"] < 1e-3
