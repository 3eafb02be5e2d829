"""Compiles programs for TPUs that are not here, and prints what was found of them: a program of its own, since JAX can be
told of libtpu's compiler only before it starts.

usage: python compile_for_tpu.py '[["attention", {...}], ...]'    functions below and their arguments; a line of JSON for each.
"""

import base64
import json
import os
import re
import sys
from pathlib import Path
from unittest import mock

from cptjax.benchmarks.ahead_of_time import ENVIRONMENT, devices_of

os.environ.update(ENVIRONMENT)

import gin  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax._src.lib import tpu  # noqa: E402
from jax._src.lib.mlir import ir  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from cptjax.configuration.configured import configure  # noqa: E402
from cptjax.configuration.flags import parse_command  # noqa: E402
from cptjax.kernels.attention import attention, backward, forward, plan_attention  # noqa: E402
from cptjax.kernels.attention.block_sizes import BlockSizes  # noqa: E402
from cptjax.models.config import DecoderConfig  # noqa: E402
from cptjax.models.model import abstract_parameters, abstract_weights, token_losses  # noqa: E402
from cptjax.models.numerics import Numerics  # noqa: E402
from cptjax.sharding.mesh import build_mesh  # noqa: E402
from cptjax.training.learning_rate import LearningRate, Segment  # noqa: E402
from cptjax.training.optimizer import AdamW  # noqa: E402
from cptjax.training.replicas import build_replicas_step, mesh_of_runs  # noqa: E402
from cptjax.training.run import Run  # noqa: E402
from cptjax.training.state import abstract_state  # noqa: E402
from cptjax.training.step import build_train_step  # noqa: E402
from cptjax.training.update import Update  # noqa: E402


def kernels_of(compiled_text: str) -> list[str]:
    """The name of every Pallas kernel in a compiled program, as often as it stands there."""
    calls = [line for line in compiled_text.splitlines() if 'custom_call_target="tpu_custom_call"' in line]
    return [re.search(r"attention_(?:forward|backward)", line.split(" custom-call(")[0]).group() for line in calls]


def products_of(compiled_text: str) -> list[str]:
    """Every matrix product of every Pallas kernel in a compiled program, as Mosaic's own text says it."""
    products = []
    for body in re.findall(r'"custom_call_config":\{"body":"([^"]+)"', compiled_text):
        context = ir.Context()
        tpu.register_dialect(context)
        context.allow_unregistered_dialects = True
        kernel = str(ir.Module.parse(base64.b64decode(body), context))
        products += [line.strip() for line in kernel.splitlines() if "tpu.matmul" in line]
    return products


def compiled_attention(generation, length, head_dim, dtype, gradient=True, heads=4, kv_heads=2, block_sizes=None):
    mesh = build_mesh(None, devices_of(generation)[:1])
    whole = NamedSharding(mesh, PartitionSpec())
    query, key = (jax.ShapeDtypeStruct((1, length, n, head_dim), dtype, sharding=whole) for n in (heads, kv_heads))
    segment_ids = jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=whole)

    def result(query, key, value, segment_ids):
        plan = None
        if block_sizes is not None:
            plan = plan_attention(segment_ids, head_dim=head_dim, dtype=query.dtype, block_sizes=block_sizes)
        return attention(query, key, value, segment_ids=segment_ids, plan=plan)  # "auto", as models ask

    def gradients(*arrays):
        loss = lambda *of: jnp.sum(result(*of, arrays[3]).astype(jnp.float32))  # noqa: E731
        return jax.grad(loss, (0, 1, 2))(*arrays[:3])

    with jax.set_mesh(mesh):
        return jax.jit(gradients if gradient else result).lower(query, key, key, segment_ids).compile()


def attention_alone(length, **shape):
    """The kernels of attention, whether any array has two axes of the row's length, and bytes beside inputs and outputs."""
    compiled = compiled_attention(length=length, **shape)
    text = compiled.as_text()
    return {
        "kernels": kernels_of(text),
        "square": f"{length},{length}" in text,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def precision(dtype, default=False):
    """The products in the kernels of attention and its gradient. default: planted, products that name no precision."""
    if default:

        def product(x, y, over):
            dimensions = (((over[0],), (over[1],)), ((), ()))
            return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)

        forward.product = backward.product = product
    return products_of(compiled_attention("v5e", 1024, 64, dtype).as_text())


def bad_block(queries):
    """What the compiler says of our kernels with blocks of so many queries; None if it takes them."""
    with mock.patch.object(BlockSizes, "__post_init__", lambda self: None):  # which says it before
        sizes = BlockSizes(queries, 128, 1024, queries, 128, 1024)
        try:
            compiled_attention("v5e", 1024, 64, "bfloat16", block_sizes=sizes)
        except Exception as error:
            return str(error)


def batch_of(mesh, rows, length, *more):
    cut = NamedSharding(mesh, PartitionSpec(("replica", "fsdp")))
    names = {"inputs": jnp.int32, "targets": jnp.int32, "segment_ids": jnp.int32, "positions": jnp.int32}
    names |= {name: jnp.float32 for name in more}
    return {name: jax.ShapeDtypeStruct((rows, length), dtype, sharding=cut) for name, dtype in names.items()}


def decoder_gradient(remat):
    """The kernels in the gradient of a decoder's loss, over four chips."""
    mesh = build_mesh({"fsdp": 2, "tensor": 2}, devices_of("v5e"))
    config = DecoderConfig(vocabulary=512, hidden=256, layers=4, heads=4, kv_heads=2, head_dim=64, mlp=512)
    numerics = Numerics(compute_dtype="bfloat16", remat=remat)

    def loss(params, batch):
        return jnp.sum(token_losses(params, config, numerics, batch))

    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss)).lower(abstract_parameters(config, mesh), batch_of(mesh, 4, 1024))
        return kernels_of(lowered.compile().as_text())


# What a recipe must be given before it is a run; nothing of it is opened.
NEEDED = {
    "MODEL": "'llama_1m'",
    "TOKENIZER": "'t'",
    "HF_CHECKPOINT": "'c'",
    "CHECKPOINT": "'c'",
    "GENERAL": "'g'",
    "TARGET": "'t'",
    "SOURCES": "{'g': 'g'}",
    "BLENDS": "[{'name': 'all', 'weights': {'g': 1.0}}]",
    "PEAK_LEARNING_RATE": "1e-3",
    "TRAIN_TOKENS": "1e6",
    "ROPE_THETA": "1e5",
    "BASE_FINAL_LR": "1e-5",
    "OUTPUT_DIR": "'o'",
}


def run_of(recipe: str) -> Run:
    """The run that a recipe describes."""
    text = Path(recipe).read_text(encoding="utf-8")
    asked = re.search(r"^# Required: (.*)$", text, re.M).group(1)
    given = [f"--gin.{name}={value}" for name, value in NEEDED.items() if re.search(rf"\b{name}\b", asked)]
    given.append("--gin.SEQUENCE_LENGTH=1024")
    configured = configure(parse_command([f"--gin_file={recipe}", *given]))
    gin.clear_config()
    try:
        gin.parse_config(configured.gin_text)
        return gin.get_configurable(Run)()
    finally:
        gin.clear_config()


def train_step(recipe):
    """The kernels in the compiled train step of a recipe, with a small model, over four chips."""
    run, mesh = run_of(recipe), build_mesh({"fsdp": 2, "tensor": 2}, devices_of("v5e"))
    config = run_of("gin/recipes/pretrain.gin").start.model
    update = Update(
        run.optimizer.transformation(abstract_weights(config)),
        LearningRate(1e-3, (Segment("hold", 0, 100, 1e-3, 1e-3),)),
        run.clip_norm,
        run.guard,
        run.average,
    )
    abstract = abstract_state(config, update, mesh)
    step = build_train_step(config, run.numerics, update, mesh, abstract, run.accumulation)
    batch = batch_of(mesh, 8, int(run.sequence_length), "weights")
    with jax.set_mesh(mesh):
        lowered = step.lower(abstract, batch)
        program = lowered.as_text()
        if program not in _KERNELS:
            _KERNELS[program] = kernels_of(lowered.compile().as_text())
    return _KERNELS[program]


def replicas_step(runs, chips):
    """The kernels in the compiled step of so many small runs side by side, shared out among chips."""
    mesh, shared = build_mesh({"fsdp": 1}, devices_of("v5e")[:1]), mesh_of_runs(devices_of("v5e")[:chips])
    config = DecoderConfig(vocabulary=512, hidden=256, layers=2, heads=4, kv_heads=2, head_dim=64, mlp=512)
    rate = LearningRate(1e-3, (Segment("hold", 0, 100, 1e-3, 1e-3),))
    update = Update(AdamW().transformation(abstract_weights(config)), rate)
    own = NamedSharding(shared, PartitionSpec("runs"))

    def of_runs(each):
        return jax.ShapeDtypeStruct((runs, *each.shape), each.dtype, sharding=own)

    with jax.set_mesh(mesh):
        state = jax.tree.map(of_runs, abstract_state(config, update, mesh))
        batch = jax.tree.map(of_runs, batch_of(mesh, 2, 1024, "weights"))
    rates = jax.ShapeDtypeStruct((runs,), jnp.float32, sharding=own)
    with jax.set_mesh(shared):
        lowered = build_replicas_step(config, Numerics(), update, shared).lower(state, batch, rates)
        return kernels_of(lowered.compile().as_text())


_KERNELS = {}  # by what is to be compiled: recipes differ in their data, and few of them in their step


if __name__ == "__main__":
    offered = {
        each.__name__: each
        for each in (attention_alone, precision, bad_block, decoder_gradient, train_step, replicas_step)
    }
    for name, arguments in json.loads(sys.argv[1]):
        print(json.dumps(offered[name](**arguments)), flush=True)
