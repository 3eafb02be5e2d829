"""How a run gets its state: three verbs that a gin file names, and `resume`, which nobody has to name."""

import dataclasses
import json
from collections.abc import Sequence

from jax.sharding import Mesh

from cptjax.checkpoints.source import OpenedCheckpoint, open_checkpoint
from cptjax.checkpoints.store import CheckpointStore
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.model import abstract_weights, initialize
from cptjax.training.freezing import Freeze
from cptjax.training.optimizer import Optimizer
from cptjax.training.state import TrainState, fresh_state
from cptjax.training.update import Update


@dataclasses.dataclass(frozen=True)
class Random:
    """Random weights drawn from `seed`: pretraining. Nothing ever falls through to this.

    family: the Hugging Face family the model is written as ("llama"); tokenizer: a folder or file.
    """

    model: DecoderConfig
    family: str
    tokenizer: str
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "seed", whole_number(self.seed, "Random.seed"))


@dataclasses.dataclass(frozen=True)
class Initialize:
    """Weights alone, from a Hugging Face folder or a run: step 0, empty moments, fresh data.

    model: which model it is to be, where the recipe's mesh and batch were planned for one; another is refused. Where there is
    no checkpoint (None), that is all that can be planned.
    """

    checkpoint: str | None
    step: int | None = None
    model: DecoderConfig | None = None

    def __post_init__(self):
        _whole_step(self)


@dataclasses.dataclass(frozen=True)
class Branch:
    """Weights, from a run of ours, and its optimizer's moments: step 0 of a new schedule.

    data: "anew" reads each source from its beginning, in this run's order; "continue" goes on past what was read. Either
    way the exposures of each source are carried in the lineage.
    moments: "carry" the optimizer's, or "reset" them to nothing (`schedule.Schedule.rebuild_moments` gathers new ones).
    """

    checkpoint: str | None
    step: int | None = None
    data: str = "anew"
    moments: str = "carry"
    model: DecoderConfig | None = None

    def __post_init__(self):
        _whole_step(self)
        if self.data not in ("anew", "continue"):
            raise ConfigurationError(f"DATA = {self.data!r}: it is 'anew' or 'continue'.")
        if self.moments not in ("carry", "reset"):
            raise ConfigurationError(f"MOMENTS = {self.moments!r}: it is 'carry' or 'reset'.")


Start = Random | Initialize | Branch


def _whole_step(start: "Initialize | Branch") -> None:
    if start.step is not None:
        object.__setattr__(start, "step", whole_number(start.step, "STEP"))


def open_start(start: Start, optimizer: Optimizer, freeze: Sequence[Freeze] = ()) -> OpenedCheckpoint | None:
    """What the run starts from, opened; None for random weights. `optimizer` and `freeze` are the run's own.

    Raises:
        ConfigurationError: nothing is there; or a branch from what holds no moments, or those of another optimizer.
    """
    if isinstance(start, Random):
        return None
    if not isinstance(start, Initialize | Branch):
        raise ConfigurationError(
            f"the run's start is {start!r}.\n  Say how it starts: @start.Initialize(), @start.Branch() or @start.Random()."
        )
    if start.checkpoint is None:
        raise ConfigurationError("the run starts from a checkpoint, and none is named (HF_CHECKPOINT = None).")
    source = open_checkpoint(start.checkpoint, start.step)
    if start.model is not None and _shapes(start.model) != _shapes(source.config):
        raise ConfigurationError(
            f"'{source.path}' is not the model that this recipe is for: its mesh and batch were planned for another.\n"
            f"  There: {source.config.to_json()}\n  Planned: {start.model.to_json()}\n"
            "  Take the general recipe, and plan it for this model (docs/planning.md)."
        )
    if isinstance(start, Branch) and (source.store is None or not source.metadata.get("has_optimizer")):
        raise ConfigurationError(
            f"'{source.path}' holds weights but no optimizer moments, so a run cannot branch from it.\n"
            "  Start with Initialize: the same weights, empty moments."
        )
    if isinstance(start, Branch) and source.average and start.moments == "carry":
        raise ConfigurationError(
            f"'{source.path}' is an average of weights; the moments that were saved belong to the weights themselves.\n"
            "  Set MOMENTS = 'reset', or name the run without /average."
        )
    if isinstance(start, Branch) and start.moments == "carry":
        _refuse_another_optimizer(source, optimizer, freeze)
    return source


def _shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Of each weight, without rows of padding."""
    return {name: spec.shape for name, spec in abstract_weights(config.unpadded()).items()}


def starting_state(
    start: Start,
    source: OpenedCheckpoint | None,
    own: CheckpointStore,
    config: DecoderConfig,
    update: Update,
    abstract: TrainState,
    mesh: Mesh,
) -> tuple[TrainState, str]:
    """The state to train from, and the verb that gave it. The order is the rule:

    1. resume: this run's own folder holds a checkpoint. Everything, bit for bit; the gin file's verb is not looked at.
    2. branch: weights of another run, with its moments or without; step 0.
    3. initialize: weights alone; step 0, empty moments.
    4. random: said in the gin file. A path that holds no checkpoint is an error, and never ends up here.

    Args:
        source: what `open_start` gave; own: this run's checkpoints.
    """
    latest = own.latest()
    if latest is not None:
        return own.restore(latest, abstract), "resume"
    if isinstance(start, Branch):
        fresh = fresh_state(source.load_parameters(mesh, config), abstract, update)
        if start.moments == "reset":
            return fresh, "branch, its moments reset"
        moments = source.store.restore(source.step, {"optimizer": abstract["optimizer"]}, partial=True)
        return {**fresh, **moments}, "branch"
    if isinstance(start, Initialize):
        return fresh_state(source.load_parameters(mesh, config), abstract, update), "initialize"
    return fresh_state(initialize(config, start.seed, mesh), abstract, update), "random"


def _refuse_another_optimizer(source: OpenedCheckpoint, optimizer: Optimizer, freeze: Sequence[Freeze]) -> None:
    """Moments are carried only into an optimizer that keeps the same ones."""
    theirs = source.metadata.get("plan", {}).get("optimizer", {})
    mine = {"name": type(optimizer).__name__, "moments": getattr(optimizer, "moments", None)}
    for name, value in mine.items():
        if theirs.get(name) != value:
            raise ConfigurationError(
                f"'{source.path}' was trained with the optimizer {theirs.get('name')} (moments: {theirs.get('moments')}), this"
                f" run has {mine['name']} (moments: {mine['moments']}).\n"
                "  Its moments cannot be carried: set MOMENTS = 'reset', or the optimizer that it had."
            )
    frozen = [json.loads(json.dumps(dataclasses.asdict(each))) for each in freeze if each.until is None]
    before = [each for each in source.metadata.get("plan", {}).get("freeze", []) if each["until"] is None]
    if frozen != before:
        raise ConfigurationError(
            f"'{source.path}' froze {_listed(before)} for its whole run, this run {_listed(frozen)} (FREEZE).\n"
            "  Weights that are never trained have no moments, so those cannot be carried.\n"
            "  Set MOMENTS = 'reset', or the same FREEZE."
        )


def _listed(freezes: Sequence[dict]) -> str:
    parts = [f"{each['weights']}" + (f" of layers {each['layers']}" if each["layers"] else "") for each in freezes]
    return ", ".join(parts) or "nothing"
