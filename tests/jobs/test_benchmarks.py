"""The benchmarks run, at sizes that measure nothing: what they print and keep is what docs/benchmarks.md says."""

import importlib.util
import json
from pathlib import Path

import pytest
from commands import run_main, write_corpus

pytestmark = pytest.mark.slow
SMALL = ["LENGTH=16", "ROWS=1"]


def test_a_step_is_compared_with_torchs_and_kept_as_a_line(tmp_path):
    pytest.importorskip("torch", reason="the peer is torch")
    pytest.importorskip("transformers", reason="the peer is transformers")
    given = ["gin/benchmarks/train_step_cpu.gin", *SMALL, "STEPS=1", f"OUTPUT='{tmp_path / 'found.jsonl'}'"]
    printed = run_main(*given)
    run_main(*given)
    assert "ratio" in printed and "processor" in printed
    first, second = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    found = first["found"]
    assert found["parameters"] == 20_453_760 and found["batch"] == "1 x 16"
    assert found["ratio"] == pytest.approx(found["seconds_torch"] / found["seconds_ours"])
    assert second["versions"] == first["versions"] and first["machine"]["cores"]


def test_exams_are_compared_with_the_harness_and_the_log_probabilities_agree(shared_data, tmp_path):
    pytest.importorskip("lm_eval", reason="the peer is lm-evaluation-harness")
    exam, output = shared_data / "exams" / "arc_easy_en.jsonl", tmp_path / "found.jsonl"
    small = [
        "QUESTIONS=3",
        "TURNS=1",
        "LONGER=2",
        "config.DecoderConfig.layers=1",
        "config.DecoderConfig.vocabulary=400",
    ]
    run_main("gin/benchmarks/exams.gin", f"EXAM='{exam}'", f"OUTPUT='{output}'", *small)
    found = json.loads(output.read_text())["found"]
    for form in ("letter", "cloze"):
        ours, theirs = (found[f"{form}_questions_per_second_{name}"] for name in ("ours", "harness"))
        assert found[f"{form}_ratio"] == pytest.approx(ours / theirs) and 0 < found[f"{form}_largest_difference"] < 1e-3
    assert found["questions"] == 3 and found["mb_after_12_questions"] > 0


def test_the_parts_of_a_step_are_timed():
    printed = run_main("gin/benchmarks/step_parts.gin", *SMALL, "REPEATS=1")
    for part in ("forward", "gradients", "attention", "mlp", "head"):
        assert f"{part}_seconds" in printed and f"{part}_of_peak" in printed


def test_preparing_is_compared_with_datasets_and_the_tokens_agree(tmp_path):
    pytest.importorskip("datasets", reason="the peer is datasets")
    text = write_corpus(tmp_path / "text.jsonl.gz", 60)
    small = ["VOCABULARY=300", "LENGTH=32", "REPEATS=1"]
    output = tmp_path / "found.jsonl"
    run_main("gin/benchmarks/prepare_data.gin", f"TEXT='{text}'", f"OUTPUT='{output}'", *small)
    found = json.loads(output.read_text())["found"]
    assert found["documents"] == 60 and found["tokens"] > 60 * 30 and found["processes"] == 2
    theirs = found["seconds_datasets_load"] + found["seconds_datasets_map"]
    assert found["ratio_tokenizing"] == pytest.approx(theirs / found["seconds_ours_tokenizing"])
    theirs += found["seconds_datasets_group_texts"]
    assert found["ratio_everything"] == pytest.approx(theirs / found["seconds_ours_everything"])
    assert found["tokens_per_second_ours_everything"] > 0 and found["core_seconds_datasets"] > 0


@pytest.mark.parametrize("of_text", [False, True])
def test_serving_resuming_and_memory_are_measured(tmp_path, of_text):
    text = [f"TEXT='{write_corpus(tmp_path / 'text.jsonl.gz', 60)}'"] if of_text else []
    small = ["LENGTH=32", "ROWS=4", "TOKENS=4e3", "BATCHES=3", "REPEATS=1", "BLEND=5", "LARGER=2", "TEXT_BYTES=5e3"]
    output = tmp_path / "found.jsonl"
    given = [*text, *small, "SOURCES=2", "VOCABULARY=300", f"OUTPUT='{output}'"]
    printed = run_main("gin/benchmarks/serve_rows.gin", *given)
    found = json.loads(output.read_text())["found"]
    assert found["batch"] == "4 x 32" and found["resume_step"] == 10**6 and found["resume_sources"] == 5
    alone = found["tokens_per_second_array_record"]
    assert found["of_array_record"] == pytest.approx(found["tokens_per_second"] / alone)
    assert found["resume_seconds"] > 0 and found["resume_seconds_tiny_shares"] > 0
    for times in (1, 2):
        assert f"serving_added_mb_{times}x" in printed
        if Path("/proc/self/status").exists():
            assert found[f"preparing_mb_{times}x"] > 10


@pytest.mark.parametrize("devices, dtype", [(1, "float32"), (2, "bfloat16")])
def test_a_checkpoint_is_read_and_exported_against_cp(tmp_path, devices, dtype):
    output = tmp_path / "found.jsonl"
    small = ["SIZE=4e6", "HIDDEN=128", "VOCABULARY=500", "REPEATS=1", f"DEVICES={devices}", f"DTYPE='{dtype}'"]
    run_main("gin/benchmarks/stream_checkpoint.gin", *small, f"FOLDER='{tmp_path}'", f"OUTPUT='{output}'")
    found = json.loads(output.read_text())["found"]
    assert found["checkpoint_mb"] == pytest.approx(4, rel=0.2)
    assert found["weights_mb"] == pytest.approx(found["checkpoint_mb"] * (1 if dtype == "float32" else 2))
    assert found["largest_tensor_mb"] == pytest.approx({"float32": 4, "bfloat16": 2}[dtype] * 512 * 128 / 1e6)
    for part in ("read", "export"):
        assert found[f"{part}_of_cp"] == pytest.approx(found[f"seconds_cp_before_{part}"] / found[f"seconds_{part}"])
        if Path("/proc/self/status").exists():
            # Of 4 MB no more can be said: what the runtime gives back meanwhile is more than a tensor of them.
            above = found[f"{part}_above_in_largest_tensors"] * found["largest_tensor_mb"]
            assert -found["weights_mb"] < above < 100
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl"]


ATTENTION = "gin/benchmarks/attention.gin"


@pytest.mark.parametrize(
    "wrong, says",
    [
        ("MODE='fastest'", "there are compare, block_sizes"),
        ("PARTS=('work', 'time')", "there are work, memory, cpu"),
        ("GENERATIONS=('v3',)", "there are v4, v5e, v5p, v6e, tpu7x"),
        ("PARTS=()", "there are work, memory, cpu"),
        ("TEXTS=('no/such.jsonl',)", "no/such.jsonl"),
        ("OUTPUT_DIR='README.md'", "is a file"),
    ],
)
def test_the_attention_benchmark_refuses_what_it_cannot_do_before_it_compiles(wrong, says):
    given = {"TEXTS": "TEXTS=()", wrong.partition("=")[0]: wrong}
    assert says in run_main(ATTENTION, *given.values(), code=2)


def test_without_libtpu_the_attention_benchmark_says_what_to_install(tmp_path):
    if importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is installed here")
    unread = "PARTS=('memory',)", "TEXTS=('no/such.jsonl',)"  # memory is of no text, so none is asked for
    assert 'pip install "cptjax[aot]"' in run_main(ATTENTION, *unread, f"OUTPUT_DIR='{tmp_path}'", code=2)


def test_attention_is_weighed_against_splash_and_a_second_run_compiles_nothing(tmp_path):
    pytest.importorskip("libtpu", reason="programs are compiled for TPUs")
    output = tmp_path / "found.jsonl"
    small = ["TEXTS=()", "PARTS=('work',)", "GENERATIONS=('v5e',)", "SPLASH_BLOCKS=((1024, 1024, 512),)"]
    given = [ATTENTION, *small, f"OUTPUT_DIR='{tmp_path / 'attention'}'", f"OUTPUT='{output}'"]
    printed = run_main(*given)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "attention" / "compiles").iterdir()}
    assert len(kept) == 2 + 4  # ours at two lengths; splash forward and backward, with and without segment ids
    assert run_main(*given).splitlines()[-1] == printed.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "attention" / "compiles").iterdir()} == kept
    first, second = (json.loads(line)["found"] for line in output.read_text().splitlines())
    assert first == second and first["not as required"] == "nothing"
    assert first["16 documents of 512, forward"] < first["one document of 4096, forward"]
    assert "| v5e | 16 documents of 512 |" in (tmp_path / "attention" / "attention.md").read_text()
    assert (tmp_path / "attention" / "attention.svg").read_text().startswith("<svg xmlns=")


def test_block_sizes_are_made_anew_in_the_tables_form(tmp_path):
    pytest.importorskip("libtpu", reason="programs are compiled for TPUs")
    small = ["TEXTS=()", "MODE='block_sizes'", "GENERATIONS=('v5e',)", "HEAD_DIMS=(128,)", "CANDIDATES=(512,)"]
    printed = run_main(ATTENTION, *small, f"OUTPUT_DIR='{tmp_path}'")
    assert '    ("v5e", 128): (512, 512, 512, 512),' in printed


def test_k_means_is_compared_with_faiss():
    pytest.importorskip("faiss", reason="the peer is faiss-cpu")
    printed = run_main("gin/benchmarks/kmeans.gin", "POINTS=3000", "DIM=8", "CLUSTERS=10", "ITERATIONS=3", "REPEATS=1")
    found = {line.split()[0]: line.split()[-1] for line in printed.splitlines() if line.startswith("objective_")}
    assert float(found["objective_ours"]) == pytest.approx(float(found["objective_faiss"]), rel=0.01)


def test_near_duplicates_are_compared_with_datasketchs_loop(tmp_path):
    pytest.importorskip("datasketch", reason="the peer is datasketch")
    text = write_corpus(tmp_path / "text.jsonl.gz", 40)
    printed = run_main("gin/benchmarks/minhash.gin", f"TEXT='{text}'", "REPEATS=1")
    names = {line.split()[0] for line in printed.splitlines() if line}
    ratios = {f"ratio_{ours}_{theirs}" for ours in ("exact", "minhash") for theirs in ("update", "update_batch")}
    assert ratios | {"dropped_by_all"} <= names  # groups that differ would have ended it
