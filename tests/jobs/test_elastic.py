"""A two-stage run, killed twice and gone on with by other numbers of processes, reads the rows of one that was not."""

import pytest
from commands import kill, logged, read, run_main, start, wait_for_steps

pytestmark = pytest.mark.slow


def test_a_run_killed_and_gone_on_with_by_other_numbers_of_processes_reads_the_same_rows(shared_data, tmp_path):
    corpora = shared_data / "corpora"
    settings = [
        "gin/recipes/reuse.gin",
        f"HF_CHECKPOINT='{shared_data / 'stories260K'}'",
        f"GENERAL='{corpora / 'english_prose.jsonl.gz'}'",
        f"TARGET='{corpora / 'chinese_law.jsonl.gz'}'",
        "REPLAY=0.2",
        f"ROWS_DIR='{tmp_path / 'rows'}'",
        "SEQUENCE_LENGTH=64",
        "BATCH_TOKENS=1024",
        "TRAIN_TOKENS=40960",
        "BASE_FINAL_LR=5e-4",
        "SAVE_EVERY=4096",
        "EVAL_EVERY=40960",
        "VALIDATION_TOKENS=4096",
    ]
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_main(*settings, f"OUTPUT_DIR='{whole}'", devices=4)
    hashes = read(whole)
    assert len(hashes) == len(set(hashes)) == 40
    first, second = (
        {name for name in line if name.startswith("loss/")} for line in logged(whole)[1:2] + logged(whole)[-2:-1]
    )
    assert first == {"loss/general"} and second == {"loss/general", "loss/target"}
    resumed = []
    for processes, steps in ((2, 10), (4, 22)):
        going = start(processes, *settings, f"OUTPUT_DIR='{run}'", devices=4 // processes)
        wait_for_steps(going, run, steps)
        resumed.append(kill(going)[0])
        assert [process.returncode for process in going] == [-9] * processes
    printed = run_main(*settings, f"OUTPUT_DIR='{run}'", devices=1)
    assert "resume: from step" in resumed[1] and "resume: from step" in printed
    assert read(run) == hashes
    assert [line["step"] for line in logged(run) if "loss" in line] == list(range(1, 41))
