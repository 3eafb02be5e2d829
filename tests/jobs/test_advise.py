"""The job `advise`: fits go in, answers with intervals come out, and questions without a fit say what they take."""

import json

import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.jobs.advise import advise
from cptjax.jobs.fit_law import fit_law
from cptjax.scaling.registry import LAWS

SCRATCH = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}
CONTINUED = {**SCRATCH, "B": 300.0, "beta": 0.3, "gamma": 0.02}


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Folders of a fit from scratch and of one of continued pretraining, to runs with a little noise."""
    folder, generator, found = tmp_path_factory.mktemp("fits"), np.random.default_rng(0), {}
    for name, law, truth in (("scratch", "chinchilla", SCRATCH), ("continued", "cross_lingual", CONTINUED)):
        lines = ["params,tokens,loss,annealed,seed"]
        for size in np.geomspace(1e7, 1e9, 4):
            for tokens in np.geomspace(1e8, 1e11, 4):
                for seed in range(2):
                    loss = float(LAWS[law].predict(truth, {"params": size, "tokens": tokens}))
                    lines.append(f"{size},{tokens},{loss * np.exp(generator.normal(0, 0.001))},true,{seed}")
        (folder / f"{name}.csv").write_text("\n".join(lines))
        frozen = found.get("scratch") if name == "continued" else None
        settings = {"starts": 64, "resamples": 24, "frozen": frozen, "held_out": None}
        fit_law(str(folder / f"{name}.csv"), law, str(folder / name), **settings)
        found[name] = str(folder / name)
    return found


def test_advice_comes_with_intervals_and_with_what_it_cannot_know(fits, tmp_path, capsys):
    out = tmp_path / "advice"
    asked = {"scratch_fit": fits["scratch"], "continued_fit": fits["continued"], "refits": 5}
    advise(str(out), 1e9, 6e19, **asked)
    found = json.loads((out / "advice.json").read_text())
    first, size, epochs, replay, split = found["answers"]
    assert first["says"].startswith("Continue this checkpoint") and first["cannot_know"]
    truth = LAWS["cross_lingual"].predict(CONTINUED, {"params": 1e9, "tokens": 1e10})
    assert first["answer"]["loss if continued"] == pytest.approx(float(truth), rel=3e-3)
    for name, (low, high) in first["intervals"].items():
        assert low is None or high is None or low <= high, name
    low, high = first["intervals"]["loss if continued"]
    assert low <= first["answer"]["loss if continued"] * 1.001 and high >= first["answer"]["loss if continued"] * 0.999
    assert size["answer"]["parameters"] * size["answer"]["tokens"] == pytest.approx(1e19)
    assert epochs["takes"] == "it takes EPOCHS_FIT, TEXT_TOKENS."
    assert replay["takes"] == "it takes FORGETTING_FIT." and split["takes"] == "it takes SPLIT_FITS."
    page = (out / "advice.md").read_text()
    assert "What this cannot know" in page and page in capsys.readouterr().out
    advise(str(out), 1e9, 6e19, **asked)
    assert "is finished; nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match=r"holds another advice \(other compute\)"):
        advise(str(out), 1e9, 7e19, **asked)
    assert first["intervals_hold"] == ["scratch"]
    assert not any("times above" in line for line in found["warnings"])
    advise(str(tmp_path / "beyond"), 1e10, 6e22, **asked)
    beyond = json.loads((tmp_path / "beyond" / "advice.json").read_text())["warnings"]
    assert any("params = 1e+10 is 10 times above" in line for line in beyond)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({}, "No fit is given"),
        ({"scratch_fit": "nowhere"}, "SCRATCH_FIT = 'nowhere' holds no fit.json"),
        ({"compute": 1.0}, "is it in other units"),
        ({"params": 0}, "PARAMS = 0 must be above 0"),
    ],
)
def test_what_cannot_be_advised_on_is_refused(asked, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        advise(str(tmp_path / "advice"), **{"params": 1e9, "compute": 6e19, **asked})
    assert not (tmp_path / "advice").exists()


def test_a_split_takes_laws_that_know_of_tokens_before_it(fits, tmp_path):
    with pytest.raises(ConfigurationError, match="knows nothing of tokens before"):
        advise(str(tmp_path / "advice"), 1e9, 6e19, split_fits={"law": fits["scratch"]})
