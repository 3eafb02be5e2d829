"""Training, scoring and planning from packed rows import no TensorFlow and no SeqIO: proved in processes where they cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = ("tensorflow", "seqio", "torch", "transformers", "tensorflow_datasets", "apache_beam")
# Importing any of these raises; the job that follows must not notice.
BLOCK = f"""
import importlib.abc, importlib.machinery, sys
class Block(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in {FORBIDDEN!r} else None
    def exec_module(self, module):
        raise ImportError(f"{{module.__name__}} is imported (blocked by this test)")
sys.meta_path.insert(0, Block())
sys.argv = ["cptjax", *sys.argv[1:]]
from cptjax.main import main
code = main()
found = sorted({{name.split(".")[0] for name in sys.modules}} & set({FORBIDDEN!r}))
assert not found, found
sys.exit(code)
"""


def run_blocked(*settings: str) -> str:
    flags = [f"--gin_file={s}" if s.endswith(".gin") else s if s.startswith("--") else f"--gin.{s}" for s in settings]
    done = subprocess.run(
        [sys.executable, "-c", BLOCK, *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prepared(shared_data, tmp_path_factory):
    """Settings of a small run whose rows were packed beforehand, by the process that may import TensorFlow."""
    pytest.importorskip("seqio")
    from cptjax.data.prepare import ensure_rows

    folder = tmp_path_factory.mktemp("prepared")
    text = folder / "text.jsonl"
    text.write_text("".join(f'{{"id": "{n}", "text": "Once upon a time there was a cat {n}."}}\n' for n in range(200)))
    for name in ("general", "target"):
        ensure_rows({name: str(text)}, str(shared_data / "stories260K"), 64, str(folder / "rows"))
    return [
        "gin/recipes/reuse.gin",
        f"HF_CHECKPOINT='{shared_data / 'stories260K'}'",
        f"GENERAL='{text}'",
        f"TARGET='{text}'",
        f"ROWS_DIR='{folder / 'rows'}'",
        "SEQUENCE_LENGTH=64",
        "BATCH_TOKENS=256",
        "TRAIN_TOKENS=1024",
        "BASE_FINAL_LR=1e-4",
    ]


def test_training_planning_exporting_and_scoring(prepared, tmp_path):
    assert "epochs" in run_blocked(*prepared, f"OUTPUT_DIR='{tmp_path / 'run'}'", "--dry_run")
    assert "done" in run_blocked(*prepared, f"OUTPUT_DIR='{tmp_path / 'run'}'")
    run_blocked("gin/jobs/export.gin", f"CHECKPOINT='{tmp_path / 'run'}'", f"OUTPUT_DIR='{tmp_path / 'exported'}'")
    (tmp_path / "in.jsonl").write_text('{"text": "A cat."}\n')
    given = [
        f"CHECKPOINT='{tmp_path / 'exported'}'",
        f"INPUT='{tmp_path / 'in.jsonl'}'",
        f"OUTPUT='{tmp_path / 'out.jsonl'}'",
    ]
    run_blocked("gin/jobs/score.gin", *given)
    assert (tmp_path / "out.jsonl").read_text().count("logprobs") == 1


def test_help_imports_neither_jax_nor_gin():
    program = "import sys; from cptjax.main import main; main(['--help']); assert not {'jax', 'gin', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "train" in done.stdout, done.stderr
