"""A checkpoint becomes a Hugging Face folder that `transformers` loads."""

from collections.abc import Mapping

import jax
from etils import epath

from cptjax.checkpoints.export_record import made_of, refuse_another, write_record
from cptjax.checkpoints.exporting import check_dtype, export_folder
from cptjax.checkpoints.source import open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import fitting_tokenizer
from cptjax.reporting.watch import watch
from cptjax.sharding.mesh import build_mesh


def export(
    checkpoint: str,
    output_dir: str,
    step: float | None = None,
    dtype: str = "float32",
    shard_bytes: float = 5e9,
    mesh: Mapping[str, int] | None = None,
    dry_run: bool = False,
) -> None:
    """Writes the weights at `checkpoint` (a run's folder, one of its steps, a Hugging Face folder) to `output_dir`.

    config.json keeps the fields of the folder the run started from, and the tokenizer's files are carried as they are.
    A folder that holds just this export already, of the same weights, is left as it is.

    Args:
        dtype: "float32", "bfloat16" or "float16" of the written weights.
        shard_bytes: the most bytes in one safetensors file.

    Raises:
        ConfigurationError: there is no such checkpoint, or something else is at `output_dir`.
        CptjaxError: the checkpoint is damaged, a weight is not finite in `dtype`, or the disk refuses.
    """
    source = open_checkpoint(checkpoint, None if step is None else whole_number(step, "STEP"))
    what = f"{source.path}" + ("" if source.step is None else f", step {source.step}")
    destination = epath.Path(output_dir).expanduser()
    check_dtype(dtype)
    tokenizer = fitting_tokenizer(source.model_folder, source.config.vocabulary, f"the checkpoint at '{source.path}'")
    how = {"dtype": dtype, "shard_bytes": whole_number(shard_bytes, "SHARD_BYTES", minimum=1)}
    if destination.exists():
        refuse_another(destination, {"step": source.step, "made_of": made_of(source), **how})
        print(f"{destination} holds this export of {what} ({dtype}) already: finished; nothing to do.")
        return
    print(f"{what}: {source.family.architecture} -> {destination} ({dtype})")
    if dry_run:
        return
    aside = destination.parent / f"{destination.name}.unrecorded"
    if jax.process_index() == 0 and aside.exists():
        aside.rmtree()  # left by an export that was killed
    export_folder(
        source.load_parameters(build_mesh(mesh)),
        source.config,
        source.family,
        source.original_config,
        source.model_folder,
        aside,
        dtype,
        how["shard_bytes"],
        None if tokenizer is None else tokenizer.undeclared(),
        watch,
    )
    if jax.process_index() == 0:
        # The folder appears with its record: whoever is killed after this finds, started again, that it is done.
        write_record(aside, {"source": str(source.path), "step": source.step, "made_of": made_of(source), **how})
        aside.rename(destination)
        print(f"wrote {destination}")
