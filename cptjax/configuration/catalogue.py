"""The jobs there are, read off the files of `cptjax/jobs` without importing them, and the text of `--help`."""

import ast
from pathlib import Path

import cptjax.jobs
from cptjax.configuration.flags import FLAGS

COMMAND = "python -m cptjax.main"
EXAMPLES = (
    f"{COMMAND} --gin_file=gin/quickstart.gin",
    f"{COMMAND} --gin_file=gin/recipes/reuse.gin --gin.HF_CHECKPOINT=\"'/data/llama'\" --gin.TRAIN_TOKENS=3e9 ...",
    f"{COMMAND} --gin_file=gin/recipes/reuse.gin ... --dry_run",
    f"{COMMAND} --gin_file=gin/jobs/export.gin --gin.CHECKPOINT=\"'runs/first'\" --gin.OUTPUT_DIR=\"'runs/first_hf'\"",
)


def jobs() -> dict[str, str]:
    """Each job's name with the first line of its docstring: a file `J.py` that defines a function `J`."""
    found = {}
    for folder in cptjax.jobs.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            if path.stem.startswith("_") or path.stem in found:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                    docstring = ast.get_docstring(node) or ast.get_docstring(tree) or ""
                    found[path.stem] = docstring.strip().split("\n")[0]
    return found


def help_text() -> str:
    """What `--help` prints."""
    lines = ["cptjax: continued pretraining of language models in JAX.", "", f"  {COMMAND} FLAGS", ""]
    lines += ["Flags:"]
    lines += [f"  {flag:<20} {meaning}" for flag, meaning in FLAGS.items()]
    lines += ["", "  Strings need quotes that survive the shell: --gin.OUTPUT_DIR=\"'runs/first'\"", ""]
    lines += ["Jobs (a gin file names one: JOB = 'train'):"]
    lines += [f"  {name:<20} {purpose}" for name, purpose in jobs().items()] or ["  none found"]
    lines += ["", "Examples:", *(f"  {example}" for example in EXAMPLES), ""]
    lines += ["Exit codes: 0 done; 1 failed; 2 the command or configuration was wrong;"]
    lines += ["  75 stopped by a signal with everything saved: run the same command again."]
    return "\n".join(lines)
