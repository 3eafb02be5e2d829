"""A Hugging Face folder becomes a run's folder with one checkpoint: read once, checked, sharded from then on."""

import dataclasses
import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cptjax.checkpoints.lineage import Lineage
from cptjax.checkpoints.source import open_checkpoint, write_model_folder
from cptjax.checkpoints.store import CheckpointStore
from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.data.sources import Where
from cptjax.data.tokenizer import fitting_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.against_transformers import check_against_transformers
from cptjax.models.model import parameter_counts
from cptjax.reporting.folder import RunFolder
from cptjax.reporting.watch import watch
from cptjax.sharding.mesh import build_mesh, describe_devices


def convert(
    checkpoint: str,
    output_dir: str,
    mesh: Mapping[str, int] | None = None,
    check: bool = False,
    check_text: Where = "python:documentation",
    check_rows: int = 4,
    check_length: int = 512,
    dry_run: bool = False,
) -> None:
    """Reads the Hugging Face folder (or name on the Hub) `checkpoint` into `<output_dir>/checkpoints/000000000`, with its lineage.

    The result may stand wherever a checkpoint may. It holds weights alone: a run starts from it by `Initialize`.
    `check` compares it with what `transformers` computes on the first rows of `check_text`, before anything is written.
    """
    check_rows, check_length = whole_number(check_rows, "CHECK_ROWS"), whole_number(check_length, "CHECK_LENGTH")
    if check_rows < 1 or check_length < 2:
        raise ConfigurationError(
            f"CHECK_ROWS = {check_rows} and CHECK_LENGTH = {check_length}: at least 1 row of 2 tokens is compared."
        )
    source = open_checkpoint(checkpoint)
    fitting_tokenizer(source.model_folder, source.config.vocabulary, f"the checkpoint at '{source.path}'")
    if source.store is not None:
        raise ConfigurationError(f"'{checkpoint}' is a run's folder already; `convert` reads Hugging Face folders.")
    folder = RunFolder(output_dir)
    store = CheckpointStore(folder.checkpoints)
    counts = parameter_counts(source.config)
    print(
        f"{checkpoint}: {source.family.architecture}, {counts.total:,} parameters ({counts.non_embedding:,} non-embedding)"
    )
    mesh = build_mesh(mesh)
    facts = {"job": "convert", "parameters": counts.total}
    params = None
    if check and dry_run:
        print(f"would compare it with transformers on {check_rows} rows of {check_text}")
    elif check:
        params = source.load_parameters(mesh)
        agreement = check_against_transformers(
            params, source.config, mesh, source.model_folder, check_text, check_rows, check_length, watch
        )
        print(
            f"transformers, {agreement.tokens:,} tokens of {check_text}: the largest difference of a log-probability is "
            f"{agreement.largest:.2g} nats, KL {agreement.kl:.2g} nats per token",
            flush=True,
        )
        facts["transformers"] = dataclasses.asdict(agreement)
    if store.latest() is not None:
        held = Lineage.from_json(store.metadata(store.latest())["lineage"])
        if (held.origin.identity, held.runs) != (source.lineage.origin.identity, ()):  # wherever either folder is now
            raise ConfigurationError(
                f"OUTPUT_DIR = '{output_dir}' holds another checkpoint already.\n  Name a new folder."
            )
        if folder.finished() is None and not dry_run:  # killed after the checkpoint and before this
            folder.finish(facts)
        print(f"{folder.path} holds this checkpoint already; nothing to do.")
        return
    if dry_run:
        print(f"would write {folder.checkpoints / '000000000'}")
        return
    folder.start(resolved_config(), sys.argv, describe_devices(jax.devices()))
    write_model_folder(folder.path, source.original_config, source.model_folder)
    params = source.load_parameters(mesh) if params is None else params
    state = {"step": jnp.zeros((), jnp.int32), "params": params}
    store.save(
        0, state, {"lineage": source.lineage.to_json(), "has_optimizer": False, "model": source.config.to_json()}
    )
    store.close()
    folder.finish(facts)
    print(f"wrote {store.path_of(0)}")
