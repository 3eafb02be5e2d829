"""What a notebook calls: jobs as the command line runs them, a checkpoint that is asked, a law fitted in one call."""

import json
import subprocess
import sys

import numpy as np
import pytest

import cptjax
from cptjax.api import Outcome
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.scaling.chinchilla import Chinchilla
from cptjax.scaling.saved_fit import read_fit

PARAMETERS = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}


@pytest.fixture(scope="module")
def model(shared_data):
    return cptjax.load_model(shared_data / "stories260K")


@pytest.fixture(scope="module")
def table():
    """Runs that lie on a law but for a part in a thousand."""
    grid = [(n, d) for n in (1e6, 3e6, 1e7, 3e7) for d in (2e7, 1e8, 5e8, 2e9)]
    columns = {"params": np.array([n for n, _ in grid]), "tokens": np.array([d for _, d in grid])}
    noise = np.exp(1e-3 * np.random.default_rng(0).standard_normal(len(grid)))
    losses = Chinchilla().predict(PARAMETERS, columns) * noise
    return [
        {"params": n, "tokens": d, "loss": float(loss), "annealed": True}
        for (n, d), loss in zip(grid, losses, strict=True)
    ]


@pytest.fixture(scope="module")
def table_file(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "runs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def test_importing_cptjax_imports_neither_jax_nor_gin():
    code = "import sys, cptjax, cptjax.api, cptjax.scaling; print({'jax', 'gin', 'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
    assert {"run", "load_model", "scaling"} <= set(dir(cptjax)) and "fit" in dir(cptjax.scaling)
    with pytest.raises(AttributeError, match="lode_model"):
        _ = cptjax.lode_model


@pytest.fixture(scope="module")
def settings(table_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits") / "fit"
    few = {"STARTS": np.int64(32), "RESAMPLES": 64, "HELD_OUT": None}
    return {"RUNS": table_file, "LAW": "chinchilla", "OUTPUT_DIR": folder, **few}


@pytest.fixture(scope="module")
def outcome(settings):
    return cptjax.run("gin/jobs/fit_law.gin", **settings)


def test_run_is_the_command_with_its_folder_and_its_record(settings, outcome, table_file, capsys):
    found = outcome.read("fit.json")
    assert found["settings"]["starts"] == 32 and found["law"] == "chinchilla"
    assert (outcome.job, outcome.path) == ("fit_law", str(settings["OUTPUT_DIR"]))
    command = outcome.read("run.json")["starts"][0]["command"]
    assert command[0].endswith("cptjax/main.py") and f"--gin.RUNS='{table_file}'" in command[1:]
    assert "LAW = 'chinchilla'  # the command line" in outcome.read("config.gin")
    capsys.readouterr()
    cptjax.run("gin/jobs/fit_law.gin", **settings)
    assert "is finished; nothing to do" in capsys.readouterr().out
    with pytest.raises(CptjaxError, match="there is no file .*fit.jso.\n.*config.gin, "):
        outcome.read("fit.jso")


def test_what_is_wrong_is_said_as_the_command_says_it(tmp_path):
    with pytest.raises(ConfigurationError, match="the macro LAWS is set, but nothing uses it"):
        cptjax.run("gin/jobs/fit_law.gin", RUNS="a.csv", LAWS="chinchilla", OUTPUT_DIR=str(tmp_path))
    with pytest.raises(ConfigurationError, match="RUNS = 'a.csv': there is no such file") as refused:
        cptjax.run("gin/jobs/fit_law.gin", RUNS="a.csv", LAW="chinchilla", OUTPUT_DIR=str(tmp_path))
    assert type(refused.value) is ConfigurationError and "In call to configurable" not in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"RUNS = array.* is no plain value.*\n.*flags=\['--gin.RUNS=@"):
        cptjax.run("gin/jobs/fit_law.gin", RUNS=np.zeros(2), LAW="chinchilla", OUTPUT_DIR=str(tmp_path))


def test_a_checkpoint_scores_and_continues_as_the_jobs_do(model, shared_data, tmp_path):
    texts = ["Once upon a time, there was a little girl", [1, 403, 407, 261]]
    lines = [{"text": texts[0]}, {"tokens": texts[1]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = {"CHECKPOINT": shared_data / "stories260K", "INPUT": tmp_path / "in.jsonl"}
    scored = cptjax.run("gin/jobs/score.gin", **asked, OUTPUT=tmp_path / "scores.jsonl").read()
    for line, text, logprobs in zip(scored, texts, model.score(texts), strict=True):
        assert line["tokens"] == model.tokens(text)
        assert logprobs.dtype == np.float32 and line["logprobs"] == [float(x) for x in logprobs]
    drawn = {"MAX_NEW_TOKENS": 8, "TEMPERATURE": 0.7, "SEED": 3}
    written = cptjax.run("gin/jobs/generate.gin", **asked, **drawn, OUTPUT=tmp_path / "texts.jsonl").read()
    ours = model.generate(texts, max_new_tokens=8, temperature=0.7, seed=3)
    assert [line["text"] for line in written] == ours and ours[0].startswith(texts[0])


def test_a_model_says_what_it_is_and_refuses_what_is_no_list_of_texts(model):
    assert "260,032 parameters" in repr(model)
    with pytest.raises(ConfigurationError, match="a list of texts is wanted"):
        model.score("Once upon a time")
    with pytest.raises(ConfigurationError, match="token 512 is not in the model's vocabulary of 512"):
        model.score([[1, 512]])


def test_a_law_in_one_call_is_the_fit_of_the_job(table, outcome):
    found, saved = cptjax.scaling.fit(table, law="chinchilla", starts=32, resamples=64), outcome.read("fit.json")
    assert found.values == saved["params"]
    assert {name: list(pair) for name, pair in found.intervals.items()} == saved["intervals"]
    assert set(found.warnings) <= set(saved["warnings"])
    refits = read_fit(outcome.path, 64, "FIT").refits
    assert [dict(values) for values in found.refits] == [dict(each.params) for each in refits]
    assert found.predict(params=1e7, tokens=5e8) == pytest.approx(
        Chinchilla().predict(PARAMETERS, {"params": 1e7, "tokens": 5e8}), rel=2e-3
    )
    assert found.values["alpha"] == pytest.approx(PARAMETERS["alpha"], rel=0.1) and "alpha" in str(found)


def test_a_table_given_as_rows_is_refused_as_a_file_is(table):
    without = [{name: value for name, value in row.items() if name != "loss"} for row in table]
    with pytest.raises(ConfigurationError, match="RUNS = 'the runs given' has no column 'loss'"):
        cptjax.scaling.fit(without)
    with pytest.raises(CptjaxError, match="wrote nothing"):
        Outcome("schedule", "", None).read("a")
