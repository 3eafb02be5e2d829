"""What gin files may import and reach."""

import os
import subprocess

import jax
import optax
import pytest

import cptjax.main
from cptjax.configuration.flags import parse_command
from cptjax.configuration.imports import check_imports, check_step, refusal
from cptjax.configuration.names import resolve
from cptjax.configuration.statements import Import, Where, read_program
from cptjax.errors import ConfigurationError

HERE = Where("a.gin", 1, "...")


@pytest.mark.parametrize("module", ["cptjax.jobs.train", "jax.numpy", "flax.nnx", "optax", "math"])
def test_allowed(module):
    assert refusal(module) is None


@pytest.mark.parametrize("module", ["os", "cptjaxx", "numpy", "jaxtyping", "gin", "tensorflow", "builtins", "optax2.x"])
def test_refused(module):
    assert refusal(module)
    assert refusal(module, [module]) is None


@pytest.mark.parametrize(
    "statement",
    ["import cptjax.configuration.names", "from cptjax import main", "from flax import io", "import jax._src"],
)
def test_parts_of_allowed_packages_that_would_undo_it(tmp_path, statement):
    (tmp_path / "a.gin").write_text(statement + "\n")
    with pytest.raises(ConfigurationError, match="a.gin:1"):
        check_imports(read_program(parse_command([f"--gin_file={tmp_path}/a.gin"])))


@pytest.mark.parametrize("selector", ["jax.numpy.tanh", "jax.numpy.float32", "jax.nn.gelu", "jax.lax.psum"])
def test_public_functions_are_reached(selector):
    assert callable(resolve(selector, [Import("jax", "jax", False, HERE)], HERE).object)


@pytest.mark.parametrize(
    "selector", ["jax.numpy.load", "jax.numpy.np.load", "jax._src.core", "jax.os", "jax.__class__"]
)
def test_what_a_package_merely_has_is_not_reached(selector):
    with pytest.raises(ConfigurationError):
        resolve(selector, [Import("jax", "jax", False, HERE)], HERE)


def test_every_optimizer_of_optax_is_reached():
    names = [
        name for name in ("adamw", "lion", "sgd", "adafactor", "chain", "clip_by_global_norm", "cosine_decay_schedule")
    ]
    assert not [name for name in names if check_step(optax, name, getattr(optax, name), [])]


def test_no_module_of_ours_hands_out_foreign_functions():
    assert check_step(cptjax.main, "sys", cptjax.main.sys, [])
    assert check_step(jax, "run", subprocess.run, []) and check_step(jax, "system", os.system, [])
