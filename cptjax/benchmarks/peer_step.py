"""A train step of ours and the same step by `transformers` and torch: same weights, same batch, same machine, taking turns."""

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cptjax.checkpoints.exporting import export_folder
from cptjax.configuration.values import whole_number
from cptjax.errors import CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.registry import family_of
from cptjax.models.flops import flops_per_token
from cptjax.models.model import abstract_weights, initialize, parameter_counts
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows
from cptjax.sharding.mesh import build_mesh
from cptjax.training.optimizer import AdamW
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state
from cptjax.training.step import build_train_step
from cptjax.training.update import Update

_RATE = 1e-4
_AGREE = 1e-3  # nats per token, after the first steps: float32 sums in another order


def peer_step(
    model: DecoderConfig,
    rows: float = 4,
    length: float = 512,
    steps: float = 12,
    threads: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Times both steps (forward, backward, clipping, AdamW), turn by turn, after checking that their losses agree.

    Args:
        rows, length: of the batch; every row is one document.
        steps: timed turns of each, after three that are not.
        threads: of torch; None: its own choice.

    Returns:
        Median seconds of each, their `ratio` (torch's over ours: 1 is as fast), tokens and counted FLOPs in a second.

    Raises:
        CptjaxError: the two do not compute the same losses.
    """
    import torch
    import transformers

    rows, length, steps = (whole_number(value, "rows, length, steps", minimum=1) for value in (rows, length, steps))
    if threads is not None:
        torch.set_num_threads(threads)
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    tokens = np.random.default_rng(seed).integers(0, model.vocabulary, (rows, length + 1))
    with jax.set_mesh(mesh):
        ours = _our_step(model, mesh, tokens, seed)
        with tempfile.TemporaryDirectory() as folder:
            family = family_of({"model_type": "llama"}, "peer_step")
            export_folder(initialize(model, seed, mesh), model, family, None, None, f"{folder}/model")
            peer = _torch_step(transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/model"), tokens)
        for _ in range(3):
            mine, theirs = ours(), peer()
            if abs(mine - theirs) > _AGREE:
                raise CptjaxError(f"the two steps differ: a loss of {mine:.6f} here, {theirs:.6f} in transformers.")
        seconds: dict[str, list[float]] = {"ours": [], "torch": []}
        for _ in range(steps):
            for name, step in (("ours", ours), ("torch", peer)):
                begin = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - begin)
    mine, theirs = (statistics.median(seconds[name]) for name in ("ours", "torch"))
    flops = flops_per_token(model, length).training * rows * length
    return {
        "parameters": parameter_counts(model).total,
        "batch": f"{rows} x {length}",
        "seconds_ours": mine,
        "seconds_torch": theirs,
        "ratio": theirs / mine,
        "tokens_per_second_ours": rows * length / mine,
        "gflops_per_second_ours": flops / mine / 1e9,
        "gflops_per_second_torch": flops / theirs / 1e9,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "torch_threads": torch.get_num_threads(),
    }


def _our_step(model: DecoderConfig, mesh: jax.sharding.Mesh, tokens: np.ndarray, seed: int) -> Callable[[], float]:
    rate = compile_schedule(Schedule(_RATE, "peak", (Phase("hold"),)), 1000, tokens.size)
    update = Update(AdamW(weight_decay=0.1).transformation(abstract_weights(model)), rate)
    abstract = abstract_state(model, update, mesh)
    step = build_train_step(model, Numerics(), update, mesh, abstract)
    rows, length = tokens.shape[0], tokens.shape[1] - 1
    batch = {
        "inputs": tokens[:, :-1].astype(np.int32),
        "targets": tokens[:, 1:].astype(np.int32),
        "segment_ids": np.ones((rows, length), np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "weights": np.ones((rows, length), np.float32),
    }
    placed = place_rows(lambda part: {name: array[part] for name, array in batch.items()}, rows, mesh)
    state = fresh_state(initialize(model, seed, mesh), abstract, update)

    def run() -> float:
        nonlocal state
        state, metrics = step(state, placed)
        return float(jax.block_until_ready(metrics)["loss"])

    return run


def _torch_step(model, tokens: np.ndarray) -> Callable[[], float]:
    import torch

    model = model.float().train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, betas=(0.9, 0.95), eps=1e-8, fused=True)
    inputs, targets = torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(tokens[:, 1:].copy())

    def run() -> float:
        logits = model(inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run
