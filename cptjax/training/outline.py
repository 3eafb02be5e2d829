"""A run without its data: what its steps compute, on which mesh, how many there are, and at which learning rates.

`plan_run` adds to it what will be read; the job `plan` compiles its step as it is, where neither text nor weights need be.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cptjax.configuration.values import whole_number
from cptjax.data.blend import Blend, Weights
from cptjax.data.stage_steps import resolve_stages
from cptjax.errors import ConfigurationError
from cptjax.models.attending import check_attention
from cptjax.models.config import DecoderConfig
from cptjax.models.model import abstract_weights
from cptjax.sharding.batches import abstract_rows
from cptjax.training.freezing import thaw_steps
from cptjax.training.learning_rate import LearningRate
from cptjax.training.lengths import steps_for_tokens
from cptjax.training.longer_context import check_length
from cptjax.training.run import Run
from cptjax.training.schedule import compile_schedule, switch_step
from cptjax.training.start import Random
from cptjax.training.state import abstract_state
from cptjax.training.step import Batch, build_train_step
from cptjax.training.update import TrainState, Update

# What a row holds at each of its positions (data/row_format.py).
_ROW = {name: jnp.int32 for name in ("inputs", "targets", "segment_ids", "positions")} | {"weights": jnp.float32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """What a run computes, and how often.

    stages: (name, weights, steps) of each, in order.
    """

    run: Run
    config: DecoderConfig
    mesh: Mesh
    steps: int
    batch_rows: int
    sequence_length: int
    learning_rate: LearningRate
    stages: Sequence[tuple[str, Weights, int]]
    router_loss: float

    @property
    def batch_tokens(self) -> int:
        """Target positions of a step."""
        return self.batch_rows * self.sequence_length

    @property
    def source_names(self) -> tuple[str, ...]:
        """The sources that stages read, in the order in which a batch counts them."""
        return tuple(Blend(self.run.stages).sources)

    @property
    def thaw(self) -> dict[str, np.ndarray]:
        """The step from which each weight is trained (training/freezing.py)."""
        return thaw_steps(self.run.freeze, abstract_weights(self.config), self.steps, self.batch_tokens)

    def update(self) -> Update:
        """What the run does with its gradients."""
        stages = [0, *itertools.accumulate(steps for _, _, steps in self.stages)]
        thawed = {int(step) for steps in self.thaw.values() for step in steps.ravel() if 0 < step < self.steps}
        return Update(
            self.run.optimizer.transformation(abstract_weights(self.config)),
            self.learning_rate,
            self.run.clip_norm,
            self.run.guard,
            self.run.average,
            self.thaw,
            tuple(sorted({*stages[:-1], *thawed})),
        )

    def train_step(
        self, abstract: TrainState
    ) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
        """The jitted step, for a state like `abstract`."""
        return build_train_step(
            self.config,
            self.run.numerics,
            self.update(),
            self.mesh,
            abstract,
            self.run.accumulation,
            self.source_names,
            self.router_loss,
            self.run.z_loss,
            self.run.compiler_flags if self.mesh.devices.flat[0].platform == "tpu" else None,
        )

    def abstract_step(self) -> tuple[TrainState, Batch]:
        """The state and the batch that a step is given, with no memory behind them."""
        state = abstract_state(self.config, self.update(), self.mesh)
        return state, abstract_rows(_ROW, ("source",), self.batch_rows, self.sequence_length, self.mesh)


def outline_run(run: Run, config: DecoderConfig, mesh: Mesh, inherited: float | None) -> Outline:
    """The outline of `run` for this model on this mesh.

    Args:
        inherited: the learning rate that the base's training ended on; None where nobody tells.

    Raises:
        ConfigurationError: a length, a batch, a schedule or stages that cannot be.
    """
    length = whole_number(run.sequence_length, "SEQUENCE_LENGTH", minimum=1)
    check_length(length, config, isinstance(run.start, Random))
    router_loss = run.router_loss_of(config)
    check_attention(config, run.numerics, mesh, length)
    batch_rows = _batch_rows(run, length, mesh)
    tokens = whole_number(run.tokens, "TRAIN_TOKENS", minimum=1)
    steps = steps_for_tokens(tokens, batch_rows * length)
    for name, spans in (
        ("SKIP_STEPS", run.skip_steps),
        ("PROFILE_STEPS", [run.profile_steps] if run.profile_steps else []),
    ):
        if spans and spans[-1][-1] > steps:
            raise ConfigurationError(f"{name} names step {spans[-1][-1]:,}, and the run has {steps:,} steps.")
    learning_rate = compile_schedule(run.schedule, steps, batch_rows * length, inherited)
    stages = resolve_stages(
        Blend(run.stages), steps, batch_rows * length, lambda share: switch_step(learning_rate, share, steps)
    )
    return Outline(
        run=run,
        config=config,
        mesh=mesh,
        steps=steps,
        batch_rows=batch_rows,
        sequence_length=length,
        learning_rate=learning_rate,
        stages=tuple(stages),
        router_loss=router_loss,
    )


def _batch_rows(run: Run, length: int, mesh: Mesh) -> int:
    batch_tokens = whole_number(run.batch_tokens, "BATCH_TOKENS", minimum=1)
    accumulation = whole_number(run.accumulation, "accumulation", minimum=1)
    rows, rest = divmod(batch_tokens, length)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    if rest or rows == 0 or rows % (ways * accumulation):
        unit = length * ways * accumulation
        nearest = max(1, round(batch_tokens / unit)) * unit
        raise ConfigurationError(
            f"BATCH_TOKENS = {batch_tokens:,} is not a whole number of rows for every device.\n"
            f"  A row is SEQUENCE_LENGTH = {length} tokens; the mesh cuts the batch {ways} ways (replica x fsdp), "
            f"accumulation {accumulation} ways.\n  The nearest that fits is BATCH_TOKENS = {nearest}."
        )
    return rows
