"""From a run's description to its outline, where neither its weights nor its text need be."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from etils import epath

from cptjax.checkpoints.source import MODEL
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.models.config import DecoderConfig
from cptjax.models.families.registry import family_of
from cptjax.models.model import abstract_weights
from cptjax.sharding.mesh import build_mesh
from cptjax.training.longer_context import lengthened
from cptjax.training.outline import Outline, outline_run
from cptjax.training.run import Run


def planned_run(run: Run, checkpoint: str | None, devices: Sequence[jax.Device]) -> Outline:
    """What `run` would compute on `devices`.

    Args:
        checkpoint: a folder with a config.json, or a run's; None: what the run says that it starts from.

    Raises:
        ConfigurationError: no model is named, or the run cannot be.
    """
    config = planned_config(run, checkpoint)
    # The learning rate is an input of a few numbers to the step: its value changes nothing that is planned.
    inherited = 1.0 if run.base_final_lr is None else run.base_final_lr
    return outline_run(run, config, build_mesh(run.mesh, devices), inherited)


def planned_config(run: Run, checkpoint: str | None) -> DecoderConfig:
    """The model with what the run changes of it: its reach, its rows of padding."""
    config = planned_model(run, checkpoint)
    if run.longer_context.asked:
        config = lengthened(config, run.longer_context)
    if run.vocabulary_multiple is None:
        return config
    return config.padded(whole_number(run.vocabulary_multiple, "VOCABULARY_MULTIPLE", minimum=1))


def state_bytes(run: Run, config: DecoderConfig) -> int:
    """Bytes of the weights and of what `run` keeps beside each: its optimizer's state, an average; of all devices together."""
    weights = abstract_weights(config)
    params = {name: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for name, spec in weights.items()}
    kept = [params, jax.eval_shape(run.optimizer.transformation(weights).init, params)]
    kept += [params] if run.average is not None else []
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def planned_model(run: Run, checkpoint: str | None) -> DecoderConfig:
    """The model that `run` trains: the folder's, if one is named, or the one that the recipe itself names.

    Raises:
        ConfigurationError: neither is there.
    """
    named = checkpoint or getattr(run.start, "checkpoint", None)
    if named is None:
        if run.start.model is not None:
            return run.start.model
        raise ConfigurationError(
            "which model is to be planned? This recipe starts from a checkpoint, and none is named.\n"
            "  HF_CHECKPOINT = a folder with its config.json (weights need not be there); or take gin/jobs/plan_model.gin instead\n"
            "  of gin/jobs/plan.gin, with MODEL = the name of a file in gin/models."
        )
    folder = epath.Path(named).expanduser()
    found = next((each for each in (folder / "config.json", folder / MODEL / "config.json") if each.exists()), None)
    if found is None:
        raise ConfigurationError(
            f"there is no config.json in '{folder}', whose model was to be planned.\n  Name a Hugging Face folder, or the folder "
            "of a run; of the former only its config.json need be there."
        )
    original = read_json(found)
    return family_of(original, str(found)).read_config(original, str(found))
