"""Where every array of a shipped recipe's state lives: its shape, the part of it on a device, the mesh axes that cut it.

usage: PYTHONPATH=. python tests/planning/shardings.py        writes tests/planning/golden/<recipe>.txt anew, to be read in a diff
"""

import sys
from pathlib import Path

import gin
import jax
from jax.sharding import AbstractMesh, AxisType

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.models.model import abstract_weights
from cptjax.planning.planned_run import planned_model
from cptjax.planning.topology import find_topology
from cptjax.sharding.mesh import AXES, mesh_shape
from cptjax.training.learning_rate import LearningRate, Segment
from cptjax.training.run import Run
from cptjax.training.state import abstract_state
from cptjax.training.update import Update

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden")
RECIPES = (
    "reuse_llama_8b",
    "reuse_llama_70b",
    "reuse_nemotron_15b",
    "domain_qwen_14b",
    "cross_lingual_1p7b",
    "d4_opt_6p7b",
)


def run_of(recipe: str, *flags: str) -> Run:
    """The run that a shipped recipe plans."""
    files = [f"--gin_file={ROOT}/gin/recipes/{recipe}.gin", f"--gin_file={ROOT}/gin/jobs/plan.gin"]
    configured = configure(parse_command([*files, "--gin.PEAK_LEARNING_RATE=1e-5", *flags]))
    gin.clear_config()
    try:
        gin.parse_config(configured.gin_text)
        return gin.get_configurable(Run)()
    finally:
        gin.clear_config()


def sharding_lines(recipe: str) -> list[str]:
    """A line for each array of the state; the devices themselves need not be there."""
    run = run_of(recipe)
    config, devices = planned_model(run, None), find_topology(run.topology, run.slices).devices
    mesh = AbstractMesh(mesh_shape(run.mesh, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    rate = LearningRate(1e-3, (Segment("hold", 0, 100, 1e-3, 1e-3),))
    transformation = run.optimizer.transformation(abstract_weights(config))
    state = abstract_state(config, Update(transformation, rate, run.clip_norm, run.guard, run.average), mesh)
    lines = [f"{run.topology}  {' '.join(f'{axis}={size}' for axis, size in mesh.shape.items())}"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        cut = ", ".join("-" if each is None else str(each) for each in leaf.sharding.spec) or "-"
        lines.append(f"{jax.tree_util.keystr(path)}  {leaf.shape}  {leaf.sharding.shard_shape(leaf.shape)}  {cut}")
    return lines


def main() -> int:
    """Writes all of them."""
    GOLDEN.mkdir(exist_ok=True)
    for recipe in RECIPES:
        (GOLDEN / f"{recipe}.txt").write_text("\n".join(sharding_lines(recipe)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
