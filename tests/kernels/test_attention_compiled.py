"""What libtpu's compiler makes of attention for TPUs that are not here: it refuses what no interpreter does."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absent import absent

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def included_by(gin_file: Path) -> set[str]:
    """The gin files that one includes, and those that these include."""
    named = re.findall(r'^include "(.*)"', gin_file.read_text(encoding="utf-8"), re.M)
    return {*named, *(further for name in named for further in included_by(ROOT / name))}


RECIPES = sorted(  # those that train: what selects data attends nowhere
    path.stem
    for path in (ROOT / "gin/recipes").glob("*.gin")
    # What is planned for a pod is one of the others at its size: gin/benchmarks/plans.gin compiles it there.
    if "gin/jobs/run.gin" in included_by(path) and "\nTOPOLOGY =" not in path.read_text(encoding="utf-8")
)
BOTH = ["attention_backward", "attention_forward"]


@pytest.fixture(scope="module")
def compiled():
    """compiled([function, arguments], ...): what compile_for_tpu.py found of each, in one process."""
    if importlib.util.find_spec("libtpu") is None:
        absent("libtpu is not installed; pip install -e .[aot] brings it", "CPTJAX_REQUIRE_LIBTPU")

    def compiled(*asked):
        ours = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "LIBTPU_INIT_ARGS")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        program = str(Path(__file__).with_name("compile_for_tpu.py"))
        done = subprocess.run(
            [sys.executable, program, json.dumps(asked)], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "[", '"', "null"))]

    return compiled


SHAPES = {  # (length, head dimension, dtype)
    "v4": [(4096, 128, "bfloat16")],
    "v5e": [(4096, 64, "bfloat16"), (8192, 256, "bfloat16"), (32768, 128, "bfloat16")],
    "v5p": [(4096, 256, "float32"), (8192, 128, "bfloat16"), (32768, 64, "bfloat16")],
}


@pytest.mark.parametrize("generation", SHAPES)
def test_the_kernels_compile_and_no_array_is_length_by_length(compiled, generation):
    """Forward with gradient; documents are an input, so packed rows and others are one program."""
    shapes = [
        {"generation": generation, "length": length, "head_dim": head_dim, "dtype": dtype}
        for length, head_dim, dtype in SHAPES[generation]
    ]
    forward = {**shapes[0], "gradient": False}
    *found, alone = compiled(*(["attention_alone", shape] for shape in (*shapes, forward)))
    assert alone["kernels"] == ["attention_forward"]
    for shape, each in zip(shapes, found, strict=True):
        assert sorted(each["kernels"]) == BOTH and not each["square"]
        # Rows of float32 beside those that come and go; a square of scores of one head were 4 * length ** 2 bytes.
        assert each["temporary_bytes"] < 4 * shape["length"] * 4 * 256 * 8


def test_float32_is_multiplied_as_float32(compiled):
    """In the kernels of the compiled program each product says so; had it named no precision, it would not."""
    float32, bfloat16, planted = compiled(
        ["precision", {"dtype": "float32"}],
        ["precision", {"dtype": "bfloat16"}],
        ["precision", {"dtype": "float32", "default": True}],
    )
    says = "precision = #tpu.contract_precision<fp32>"
    assert len(float32) >= 7  # two forward, five backward, each in a loop with a mask and in one without
    assert all(says in product and "xf32>, vector<" in product for product in float32)
    assert len(bfloat16) == len(planted) == len(float32)
    assert not any(says in product for product in (*bfloat16, *planted))


def test_the_compiler_refuses_a_block_that_breaks_tiling(compiled):
    good, bad = compiled(["bad_block", {"queries": 128}], ["bad_block", {"queries": 64}])
    assert good is None and "divisible by 8 and 128" in bad, bad


def test_a_decoder_keeps_or_repeats_the_forward_kernel_as_remat_says(compiled):
    full, kept = compiled(["decoder_gradient", {"remat": "full"}], ["decoder_gradient", {"remat": "attention_output"}])
    assert sorted(full) == [*BOTH, "attention_forward"]
    assert sorted(kept) == BOTH


def test_runs_side_by_side_attend_by_the_kernels_on_one_chip_and_on_several(compiled):
    one, several = (["replicas_step", {"runs": 4, "chips": chips}] for chips in (1, 4))
    assert [sorted(each) for each in compiled(one, several)] == [BOTH, BOTH]


def test_the_train_step_of_every_recipe_attends_by_the_kernels(compiled):
    found = compiled(*(["train_step", {"recipe": f"gin/recipes/{name}.gin"}] for name in RECIPES))
    assert {name: sorted(set(kernels)) for name, kernels in zip(RECIPES, found, strict=True)} == dict.fromkeys(
        RECIPES, BOTH
    )
