"""A checkpoint read onto the mesh and exported again: memory above the weights' own, and time against `cp` of its files.

Every turn is a process of its own. In it `cp`, reading, `cp` and exporting are each done twice, what the first time gave is
removed, and the second is timed: the files are in the page cache, and whoever touches memory first that a virtual machine's host
has taken back waits for it, up to seconds a gigabyte. Nothing is fsynced within a timed part, by `cp` as little as by us; a
`sync` between turns is not timed.
"""

import gc
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from cptjax.benchmarks.memory import allocated
from cptjax.checkpoints.exporting import EXPORT_DTYPES
from cptjax.checkpoints.safetensors import TensorSpec
from cptjax.checkpoints.safetensors_writing import write_tensors
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import correspondences
from cptjax.models.families.llama import LLAMA
from cptjax.processes import child_environment

_EVERY = 0.002  # seconds between two looks at RssAnon


def stream_checkpoint(
    size: float = 4e9,
    hidden: float = 2048,
    vocabulary: float = 32000,
    dtype: str = "float32",
    shard_bytes: float = 5e9,
    devices: float = 1,
    repeats: float = 3,
    folder: str | None = None,
) -> dict[str, Any]:
    """Makes a Llama of about `size` bytes of random weights, then takes turns: `cp`, and reading and exporting it.

    Args:
        size: bytes of the checkpoint; as many layers as that takes, of width `hidden` with an MLP four times as wide.
        dtype: of the checkpoint's weights and of the export's; on the mesh they are float32.
        devices: so many virtual CPU devices, the weights sharded over all of them (`fsdp`).
        folder: where some three times `size` is written for a while; None: the system's folder for such things.

    Returns:
        Medians over `repeats` turns of the seconds and of their ratio to the `cp` just before (above 1 we are faster), and
        the largest of what a process had allocated above what it had before reading and above the weights on the mesh, in
        units of the checkpoint's largest tensor, in its dtype; None where the system does not tell.
    """
    if dtype not in EXPORT_DTYPES:
        raise ConfigurationError(f"DTYPE = {dtype!r}; it must be one of {', '.join(EXPORT_DTYPES)}.")
    hidden, vocabulary, devices, repeats = (
        whole_number(value, name, minimum=1)
        for value, name in (
            (hidden, "HIDDEN"),
            (vocabulary, "VOCABULARY"),
            (devices, "DEVICES"),
            (repeats, "REPEATS"),
        )
    )
    with tempfile.TemporaryDirectory(prefix="cptjax-benchmark-", dir=folder) as root:
        source = Path(root) / "source"
        specs = _write_checkpoint(source, size, hidden, vocabulary, dtype, whole_number(shard_bytes, "shard_bytes"))
        counts = [math.prod(spec.shape) for spec in specs.values()]
        turns = [_turn(source, Path(root), devices, dtype, int(shard_bytes)) for _ in range(repeats)]
    largest = max(spec.bytes for spec in specs.values())
    found = {
        "checkpoint_mb": sum(spec.bytes for spec in specs.values()) / 1e6,
        "tensors": len(specs),
        "largest_tensor_mb": largest / 1e6,
        "weights_mb": 4 * sum(counts) / 1e6,
    }
    for part in ("read", "export"):
        for name in (f"seconds_cp_before_{part}", f"seconds_{part}"):
            found[name] = statistics.median(turn[name] for turn in turns)
        found[f"{part}_of_cp"] = statistics.median(
            turn[f"seconds_cp_before_{part}"] / turn[f"seconds_{part}"] for turn in turns
        )
    for part in ("read", "export"):
        most = [turn[f"most_{part}"] for turn in turns]
        above = None if None in most else max(most) - 4 * sum(counts)
        found[f"{part}_above_in_largest_tensors"] = None if above is None else above / largest
    return found


def _write_checkpoint(
    folder: Path, size: float, hidden: int, vocabulary: int, dtype: str, shard_bytes: int
) -> dict[str, TensorSpec]:
    """Random weights in a Hugging Face folder, one tensor in memory at a time."""
    heads = max(1, hidden // 64)
    shape = {"vocabulary": vocabulary, "hidden": hidden, "heads": heads, "kv_heads": heads, "mlp": 4 * hidden}
    kind = EXPORT_DTYPES[dtype]

    def specs_of(layers: int) -> tuple[DecoderConfig, dict[str, TensorSpec]]:
        config = DecoderConfig(**shape, layers=layers, head_dim=2 * math.ceil(hidden / heads / 2))
        entries = correspondences(LLAMA, config).values()
        return config, {
            theirs: TensorSpec(kind, entry.layout.their_shape(entry.shape))
            for entry in entries
            for theirs in entry.names
        }

    bytes_of = [sum(spec.bytes for spec in specs_of(layers)[1].values()) for layers in (1, 2)]
    layers = max(1, round((size - (2 * bytes_of[0] - bytes_of[1])) / (bytes_of[1] - bytes_of[0])))
    config, specs = specs_of(layers)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    tensors = (0.02 * random.standard_normal(spec.shape, np.float32) for spec in specs.values())
    write_tensors(folder, specs, (tensor.astype(kind, copy=False) for tensor in tensors), shard_bytes)
    (folder / "config.json").write_text(json.dumps(LLAMA.write_config(config)), encoding="utf-8")
    return specs


def _turn(source: Path, root: Path, devices: int, dtype: str, shard_bytes: int) -> dict[str, Any]:
    """One child that reads and exports, each after a `cp`; their seconds, and its memory."""
    exported = root / "exported"
    os.sync()
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    child = subprocess.run(
        [sys.executable, "-m", "cptjax.benchmarks.streaming", str(source), str(exported), dtype, str(shard_bytes)],
        env=child_environment({"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if child.returncode:
        raise CptjaxError("a part of the benchmark failed:\n  " + "\n  ".join(child.stderr.splitlines()[-8:]))
    shutil.rmtree(exported)
    return json.loads(child.stdout.splitlines()[-1])


def _copy_seconds(source: Path) -> float:
    """Seconds that `cp` of a checkpoint's files takes, the second time; nothing of it is left."""
    copied = source.parent / "copied"
    files = sorted(map(str, source.glob("*.safetensors")))
    never = ["--reflink=never", "--sparse=never"] if sys.platform == "linux" else []
    for _ in range(2):
        copied.mkdir()
        begin = time.perf_counter()
        subprocess.run(["cp", *never, *files, str(copied)], check=True)
        seconds = time.perf_counter() - begin
        shutil.rmtree(copied)
    return seconds


class _Most:
    """The most bytes that this process has allocated while in a `with` block, above `before`; None where nobody tells."""

    def __init__(self, before: int | None):
        self.before = before
        self.bytes: int | None = None

    def __enter__(self) -> "_Most":
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        now = allocated()
        if now is not None and self.before is not None:
            self.bytes = max(self.bytes or 0, now - self.before)


def _read_and_export(source: str, exported: str, dtype: str, shard_bytes: int) -> dict[str, Any]:
    import jax

    from cptjax.checkpoints.exporting import export_folder
    from cptjax.checkpoints.hugging_face import open_folder
    from cptjax.checkpoints.loading import load_parameters
    from cptjax.sharding.mesh import build_mesh

    mesh = build_mesh({"fsdp": -1})
    jax.block_until_ready(jax.numpy.zeros(8) + 1)  # the runtime's own memory and threads are there from here on
    before = allocated()
    found: dict[str, Any] = {"seconds_cp_before_read": _copy_seconds(Path(source))}
    with _Most(before) as most:
        for _ in range(2):
            params = None
            gc.collect()  # the runtime lets go of memory that it took over from numpy when Python next collects
            begin = time.perf_counter()
            folder = open_folder(source)
            params = jax.block_until_ready(load_parameters(folder, mesh))
            found["seconds_read"] = time.perf_counter() - begin
    found["most_read"] = most.bytes
    found["seconds_cp_before_export"] = _copy_seconds(Path(source))
    with _Most(before) as most:
        for _ in range(2):
            shutil.rmtree(exported, ignore_errors=True)
            begin = time.perf_counter()
            export_folder(
                params,
                folder.decoder_config,
                folder.family,
                folder.config,
                None,
                exported,
                dtype,
                shard_bytes=shard_bytes,
            )
            found["seconds_export"] = time.perf_counter() - begin
    found["most_export"] = most.bytes
    return found


if __name__ == "__main__":
    print(json.dumps(_read_and_export(*sys.argv[1:4], int(sys.argv[4]))))
