"""A Hugging Face folder becomes a run's folder with one checkpoint: read once, checked, sharded from then on."""

import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cptjax.checkpoints.lineage import Lineage
from cptjax.checkpoints.source import open_checkpoint, write_model_folder
from cptjax.checkpoints.store import CheckpointStore
from cptjax.configuration import resolved_config
from cptjax.errors import ConfigurationError
from cptjax.models.model import parameter_counts
from cptjax.reporting.folder import RunFolder
from cptjax.sharding.mesh import build_mesh, describe_devices


def convert(checkpoint: str, output_dir: str, mesh: Mapping[str, int] | None = None, dry_run: bool = False) -> None:
    """Reads the Hugging Face folder (or name on the Hub) `checkpoint` into `<output_dir>/checkpoints/000000000`, with its lineage.

    The result may stand wherever a checkpoint may. It holds weights alone: a run starts from it by `Initialize`.
    """
    source = open_checkpoint(checkpoint)
    if source.store is not None:
        raise ConfigurationError(f"'{checkpoint}' is a run's folder already; `convert` reads Hugging Face folders.")
    folder = RunFolder(output_dir)
    store = CheckpointStore(folder.checkpoints)
    counts = parameter_counts(source.config)
    print(
        f"{checkpoint}: {source.family.architecture}, {counts.total:,} parameters ({counts.non_embedding:,} non-embedding)"
    )
    if store.latest() is not None:
        held = Lineage.from_json(store.metadata(store.latest())["lineage"])
        if (held.origin.identity, held.runs) != (source.lineage.origin.identity, ()):  # wherever either folder is now
            raise ConfigurationError(
                f"OUTPUT_DIR = '{output_dir}' holds another checkpoint already.\n  Name a new folder."
            )
        if folder.finished() is None and not dry_run:  # killed after the checkpoint and before this
            folder.finish({"job": "convert", "parameters": counts.total})
        print(f"{folder.path} holds this checkpoint already; nothing to do.")
        return
    if dry_run:
        print(f"would write {folder.checkpoints / '000000000'}")
        return
    folder.start(resolved_config(), sys.argv, describe_devices(jax.devices()))
    write_model_folder(folder.path, source.original_config, source.model_folder)
    params = source.load_parameters(build_mesh(mesh))
    state = {"step": jnp.zeros((), jnp.int32), "params": params}
    store.save(
        0, state, {"lineage": source.lineage.to_json(), "has_optimizer": False, "model": source.config.to_json()}
    )
    store.close()
    folder.finish({"job": "convert", "parameters": counts.total})
    print(f"wrote {store.path_of(0)}")
