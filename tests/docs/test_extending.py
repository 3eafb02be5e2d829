"""docs/extending.md, sharing.md and python.md are followed: the files that they show are written, their commands are run."""

import json
import shlex
import shutil

import pytest
from pages import ROOT, block, commands, marks

from cptjax.evaluation.exams.questions import find_exams
from cptjax.main import main

PAGE = ROOT / "docs/extending.md"
WORDS = "the cat sat on a mat and saw one small red bird that sang to him all day long so he was glad".split()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory, shared_data):
    """A folder with the files of the page, a checkpoint called base, and a corpus."""
    folder = tmp_path_factory.mktemp("extending")
    for name in marks(PAGE, "file"):
        (folder / name).write_text(block(PAGE, f"file: {name}"), encoding="utf-8")
    shutil.copytree(shared_data / "stories260K", folder / "base")
    texts = [" ".join(WORDS[(3 * i * i + i + n) % len(WORDS)] for i in range(20 + n)) for n in range(40)]
    lines = [json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def here(scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    monkeypatch.syspath_prepend(scratch)
    return scratch


def run(mark: str, *more: str) -> None:
    """The command behind a mark, as it stands."""
    words = shlex.split(block(PAGE, f"command: {mark}").replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "cptjax.main"]
    assert main([*words[3:], *more]) == 0


@pytest.mark.slow
def test_a_law_of_ones_own(here):
    run("fit my law", "--gin.STARTS=32", "--gin.RESAMPLES=0")
    found = json.loads((here / "runs/fit/fit.json").read_text())
    assert found["law"] == "tokens_only" and 1 < found["params"]["E"] < 2.6 and found["held_out_error"] < 0.01


def test_a_policy_of_ones_own(here):
    run("my policy")
    lines = [json.loads(line) for line in (here / "runs/selected/manifest.jsonl").read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in (here / "corpus.jsonl").read_text().splitlines()]
    kept = [len(text) for text, line in zip(texts, lines, strict=True) if line["kept"]]
    assert sorted(kept) == sorted(map(len, texts))[20:]
    assert {line["stage"] for line in lines if not line["kept"]} == {"longest"} and "shorter" in lines[0]["reason"]


def test_text_by_a_template(here, capsys):
    with (here / "questions.jsonl").open() as stream:
        two = stream.read()
    many = [
        {"id": str(n), "question": f"How many is {n} and one?", "choices": [str(n), str(n + 1)], "answer": 1}
        for n in range(3, 60)
    ]
    with (here / "questions.jsonl").open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in many)
    try:
        run("my task")
        printed = capsys.readouterr().out
        assert "target train: 58 documents" in printed and "target validation: 1 documents" in printed
    finally:
        (here / "questions.jsonl").write_text(two)


def test_an_exam_is_read(here):
    (exam,) = find_exams("questions.jsonl")
    assert (exam.questions, exam.most_choices) == (2, 3)


@pytest.mark.slow
def test_the_same_source_as_a_seqio_task(here):
    pytest.importorskip("seqio")
    module = {}
    exec(compile(block(PAGE, "file: my_seqio_task.py"), "docs/extending.md", "exec"), module)
    dataset = module["mixture"].get_dataset({"targets": 64}, split="train", shuffle=False)
    assert next(iter(dataset.as_numpy_iterator()))["targets"].ndim == 1


def test_the_file_worth_sharing_says_what_it_changes(here, capsys):
    (here / "my_recipe.gin").write_text(block(ROOT / "docs/sharing.md", "file: my_recipe.gin"))
    paths = ["--gin.HF_CHECKPOINT='base'", "--gin.GENERAL='corpus.jsonl'", "--gin.TARGET='corpus.jsonl'"]
    small = ["--gin.TRAIN_TOKENS=131072", "--gin.OUTPUT_DIR='runs/technical'", "--dry_run"]
    assert main(["--gin_file=my_recipe.gin", *paths, *small]) == 0
    plan = " ".join(capsys.readouterr().out.split())
    assert "16 of 32 rows x 256 = 8,192 tokens" in plan and "schedule 0.0001 -> 1e-06" in plan
    assert "target general 4 25.00%" in plan


@pytest.mark.slow
def test_the_calls_of_the_python_page(scratch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(scratch / "base")
    rows = [
        f"{n:g},{d:g},{1.7 + 400 / n**0.35 + 2000 / d**0.37:.6f},true"
        for n in (1e6, 4e6, 16e6)
        for d in (1e8, 1e9, 1e10)
    ]
    (tmp_path / "runs.csv").write_text("params,tokens,loss,annealed\n" + "\n".join(rows) + "\n")
    module = {}
    exec(compile(block(ROOT / "docs/python.md", "python: api"), "docs/python.md", "exec"), module)
    assert module["law"].values == module["fitted"].read("fit.json")["params"]


def test_the_commands_of_the_page_are_those_that_are_run_here():
    assert len(commands(PAGE)) == len(marks(PAGE, "command")) == 3
