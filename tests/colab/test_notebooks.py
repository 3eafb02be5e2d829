"""The notebooks of colab/: what they are made of, and (slow) all of them from the first cell to the last."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
NAMES = ["choose_data_with_d4", "continue_a_checkpoint", "fit_a_law_and_ask", "plan_a_pod"]
SAYS = {  # what its last cells have to have said
    "choose_data_with_d4": [r"[\d,]+ kept", r"[\d,]+ prototypes", r"semantic_duplicates: \S+#\d+-\d+"],
    "continue_a_checkpoint": [r"target: [\d.]+ -> [\d.]+ bits per byte", "model.safetensors", "nats per token of"],
    "fit_a_law_and_ask": ["alpha: made with 0.34, inside its interval", "It cannot know: "],
    "plan_a_pod": [r"[\d.]+ MiB of a .*, cut as \{", r"[\d.]+ MB sent by a device in a step: "],
}


def sources(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_four_of_them():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_is_short_clean_and_begins_with_the_installation(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) < 15
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    installs = {re.sub(r'EXTRAS = "\S*"', "EXTRAS", sources(each)[0]) for each in NOTEBOOKS}
    assert len(installs) == 1 and "pip" in installs.pop()


def test_the_first_cell_does_nothing_where_cptjax_is_installed(monkeypatch, capsys):
    import subprocess

    monkeypatch.setattr(subprocess, "run", None)  # a call would fail
    exec(compile(sources(NOTEBOOKS[0])[0], "first cell", "exec"), {})
    assert capsys.readouterr().out.startswith("cptjax 0.")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_from_start_to_end(path, tmp_path):
    """As on a machine of two devices; its kernel is a process of its own, in a fresh folder."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    flags = "--xla_force_host_platform_device_count=2"
    own = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "IPYTHONDIR": str(tmp_path / "ipython")}
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env={**os.environ, **own})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs), "no plot"
    for pattern in SAYS[path.stem]:
        assert re.search(pattern, said), f"nothing like {pattern!r} in:\n{said[-3000:]}"
    if path.stem == "continue_a_checkpoint":
        before, after = map(float, re.search(r"target: ([\d.]+) -> ([\d.]+) bits", said).groups())
        assert after < before - 0.1
    if path.stem == "plan_a_pod":
        there = importlib.util.find_spec("libtpu") is not None
        assert there or not os.environ.get("CPTJAX_REQUIRE_LIBTPU"), "no libtpu"
        assert ("planning for v5e:2x2" in said) == there and ("SKIPPED: no libtpu" in said) != there
        assert (re.search(r"a step: [\d.]+ to [\d.]+ ms", said) is not None) == there
        assert ("meshes fit v5e:2x2 on paper" in said) == there
