"""A checkpoint becomes a Hugging Face folder that `transformers` loads."""

from collections.abc import Mapping

from etils import epath

from cptjax.checkpoints.hugging_face import export_folder
from cptjax.checkpoints.source import open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import has_tokenizer, open_tokenizer
from cptjax.errors import ConfigurationError
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
    dtype: "float32", "bfloat16" or "float16" of the written weights.
    """
    source = open_checkpoint(checkpoint, None if step is None else whole_number(step, "STEP"))
    what = f"{source.path}" + ("" if source.step is None else f", step {source.step}")
    output_dir = str(epath.Path(output_dir).expanduser())
    if epath.Path(output_dir).exists():
        raise ConfigurationError(
            f"OUTPUT_DIR = '{output_dir}' exists already; an export never overwrites. Name a new folder."
        )
    print(f"{what}: {source.family.architecture} -> {output_dir} ({dtype})")
    if dry_run:
        return
    params = source.load_parameters(build_mesh(mesh))
    limit = whole_number(shard_bytes, "shard_bytes", minimum=1)
    export_folder(
        params,
        source.config,
        source.family,
        source.original_config,
        source.model_folder,
        output_dir,
        dtype,
        limit,
        open_tokenizer(str(source.model_folder)).undeclared() if has_tokenizer(source.model_folder) else None,
    )
    print(f"wrote {output_dir}")
