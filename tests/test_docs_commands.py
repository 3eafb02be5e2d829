"""What a documentation page tells people to type is what the programs take: each marked command, as far as it can run here.

`tpu_scripts/` are run with --dry_run; what is handed to cptjax.main is configured as it would be, and not started: a flag, a
macro or a gin file that is not there, and a macro that is missing, are errors. A page is added to PAGES.
"""

import os
import subprocess

import gin
import pytest
import yaml
from marked_commands import ROOT, blocks, commands, cptjax_arguments

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.planning.topology import find_topology

PAGES = ("docs/tpu.md",)
MARKED = [(page, name) for page in PAGES for name in commands(page)]
PLACE = {"CLOUDSDK_CORE_PROJECT": "my-project", "CLOUDSDK_COMPUTE_ZONE": "us-east5-a"}


@pytest.mark.parametrize("page", PAGES)
def test_no_command_of_ours_is_left_unmarked(page):
    for name, kind, text in blocks(page):
        ours = "tpu_scripts/" in text or "cptjax.main" in text
        assert name or kind or not ours or text.startswith("#!"), text


@pytest.mark.parametrize(("page", "name"), [each for each in MARKED if "tpu_scripts/" in commands(each[0])[each[1]]])
def test_a_tpu_script_takes_its_command(page, name):
    command = commands(page)[name].replace(".sh", ".sh --dry_run", 1)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env={**os.environ, **PLACE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "gcloud " in done.stdout


@pytest.mark.parametrize(("page", "name"), [each for each in MARKED if cptjax_arguments(commands(each[0])[each[1]])])
def test_cptjax_takes_its_command(page, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    configured = configure(parse_command(cptjax_arguments(commands(page)[name])))
    gin.clear_config()
    assert configured.job in ("train", "plan", "export")


def test_the_jobset_is_yaml_whose_command_cptjax_takes(monkeypatch):
    monkeypatch.chdir(ROOT)
    (text,) = [text for _, kind, text in blocks("docs/tpu.md") if kind == "yaml"]
    pods = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    spec = pods["template"]["spec"]
    container = spec["containers"][0]
    words = [str(word) for word in [*container["command"], *container["args"]]]
    assert configure(parse_command(words[words.index("cptjax.main") + 1 :])).job == "train"
    gin.clear_config()
    topology = find_topology(f"v6e:{spec['nodeSelector']['cloud.google.com/gke-tpu-topology']}")
    assert pods["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == topology.chips


def test_prices_of_slices_are_those_of_the_table_in_gin():
    table = {}
    exec(
        (ROOT / "gin/jobs/plan.gin").read_text().partition("PRICES = ")[2].partition("\n")[0].join(("prices = ", "")),
        table,
    )
    rows = [
        line.split("|") for line in (ROOT / "docs/tpu.md").read_text("utf-8").splitlines() if line.startswith("| v")
    ]
    assert len(rows) == 6
    for _, name, chips, dollars, _ in rows:
        topology = find_topology(name.strip())
        assert topology.chips == int(chips)
        assert float(dollars) == pytest.approx(topology.chips * table["prices"][name.strip().split(":")[0]])
