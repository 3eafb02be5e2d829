"""The job `fit_law`: what it writes, that it does nothing twice, and every refusal of PROTOCOL 13 in words for people."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.jobs.fit_law import fit_law
from cptjax.scaling.registry import LAWS

ROOT = Path(__file__).parents[2]
TRUTH = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}


def rows(sizes=4, tokens=4, **columns):
    """A grid that follows `chinchilla` with a little noise, three seeds a point."""
    generator, found = np.random.default_rng(0), []
    for size in np.geomspace(1e7, 1e9, sizes):
        for read in np.geomspace(1e8, 1e11, tokens):
            for seed in range(3):
                loss = float(LAWS["chinchilla"].predict(TRUTH, {"params": size, "tokens": read}))
                loss *= np.exp(generator.normal(0, 0.003))
                found.append(
                    {"params": size, "tokens": read, "loss": loss, "annealed": "true", "seed": seed, **columns}
                )
    return found


def table(folder, found):
    path = folder / "runs.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return str(path)


def test_a_fit_is_written_told_and_not_done_twice(tmp_path, capsys):
    runs, out = table(tmp_path, rows()), tmp_path / "fit"
    settings = {"runs": runs, "law": "chinchilla", "output_dir": str(out), "starts": 64, "resamples": 64}
    fit_law(**settings, dry_run=True)
    assert not out.exists()
    fit_law(**settings)
    printed, found = capsys.readouterr().out, json.loads((out / "fit.json").read_text())
    assert found["law"] == "chinchilla" and set(found["params"]) == set(found["intervals"]) == set(TRUTH)
    for name in ("alpha", "beta"):
        assert found["params"][name] == pytest.approx(TRUTH[name], abs=0.03)
        low, high = found["intervals"][name]
        assert low < found["params"][name] < high
    assert found["held_out"]["runs"] == 12 and found["held_out_error"] < 0.02 and 0 < found["skill"] <= 1
    page = (out / "report.html").read_text()
    assert page.count('<svg class="chart"') == 5  # curves, agreement, residuals, loss at equal compute, the frontier
    assert "E + A / N**alpha + B / D**beta" in page and "src=" not in page
    markdown, latex = (out / "tables.md").read_text(), (out / "tables.tex").read_text()
    assert f"| alpha | {found['params']['alpha']:.5g} |" in markdown
    assert f"alpha & {found['params']['alpha']:.5g} &" in latex and latex.count(r"\begin{tabular}") == 2
    assert len(json.loads((out / "refits.json").read_text())["values"]) == 64
    assert found["seed_deviation"] == pytest.approx(0.003 * 2.9, rel=0.5)
    assert (
        found["allocation"]["size_exponent"]["interval"][0]
        < 0.514
        < found["allocation"]["size_exponent"]["interval"][1]
    )
    assert "95% interval (bootstrap over runs)" in printed and "held-out error" in printed
    fit_law(**settings)
    assert "is finished; nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match=r"holds another fit \(other resamples\)"):
        fit_law(**{**settings, "resamples": 32})


def changed(**cells):
    return [{**row, **cells} for row in rows()]


@pytest.mark.parametrize(
    "found, law, message",
    [
        (
            rows(sizes=2),
            "chinchilla",
            r"params has 2 levels, .* fits 2 parameters on it \(A, alpha\): that takes 3 levels",
        ),
        (changed(tokens=1e9), "chinchilla", "tokens is 1e[+]09 in every run"),
        (
            [*rows(), {**rows()[0], "loss": -0.1}],
            "chinchilla",
            "loss is -0.1, and must be above 0: .*line 50.*nats per token",
        ),
        (
            [{**row, "tokens": row["tokens"] / 1e9} for row in rows()],
            "chinchilla",
            "the most tokens of any run is 100: that looks",
        ),
        (
            [{**row, "params": row["params"] / 1e7} for row in rows()],
            "chinchilla",
            "the most params of any run is 100: that looks like",
        ),
        ([*rows(), {**rows()[0], "annealed": "false"}], "chinchilla", "1 of 49 points are not annealed: .*line 50"),
        ([*rows(), {**rows()[0], "loss": ""}], "chinchilla", "loss is empty or not finite: .*line 50"),
        ([*rows(), {**rows()[0], "loss": "low"}], "chinchilla", "line 50: loss is 'low', which is no number"),
        (rows(), "effective_tokens", "has no column 'prior_tokens'"),
        (rows(), "cross_lingual", "takes E, A, alpha from another fit"),
        (rows(), "chincilla", "LAW = 'chincilla' is no law of cptjax"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_written(found, law, message, tmp_path):
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        fit_law(table(tmp_path, found), law, str(tmp_path / "fit"))
    assert not (tmp_path / "fit").exists()


def test_a_refusal_is_switched_off_by_name(tmp_path, capsys):
    runs = table(tmp_path, [*rows(), {**rows()[0], "annealed": "false"}])
    fit_law(runs, "chinchilla", str(tmp_path / "fit"), allow=["unannealed"], dry_run=True)
    assert "49 runs" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="noise is none of unannealed, few_levels, units"):
        fit_law(runs, "chinchilla", str(tmp_path / "fit"), allow=["noise"])


def test_the_command_takes_another_fits_parameters(tmp_path):
    """The gin file binds what the job takes; frozen values come from a fit's folder."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "fit.json").write_text(json.dumps({"params": TRUTH}))
    flags = [
        f"RUNS='{table(tmp_path, rows())}'",
        "LAW='cross_lingual'",
        f"FROZEN='{scratch}'",
        f"OUTPUT_DIR='{tmp_path / 'fit'}'",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cptjax.main",
            "--gin_file=gin/jobs/fit_law.gin",
            *(f"--gin.{flag}" for flag in flags),
            "--dry_run",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cross_lingual: 48 runs of" in done.stdout and "3 parameters to fit" in done.stdout
