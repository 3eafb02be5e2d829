"""The description of a training run, as gin binds it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from cptjax.configuration.values import whole_number
from cptjax.data.blend import Stage, named
from cptjax.data.packing import CONCATENATE
from cptjax.data.planning import TOKENS
from cptjax.data.sources import Where
from cptjax.data.splits import SplitSettings
from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.training.freezing import Freeze
from cptjax.training.guard import Guard
from cptjax.training.longer_context import LongerContext
from cptjax.training.optimizer import AdamW, Optimizer
from cptjax.training.samples import Samples
from cptjax.training.schedule import Schedule
from cptjax.training.start import Start

Flags = Mapping[str, str | bool | int]  # of a compiler, name -> value


def merged_flags(given: Flags | Sequence[Flags] | None, macro: str = "COMPILER_FLAGS") -> dict[str, str | bool | int]:
    """One set of flags out of several; what a later one says holds. `macro` is what an error calls them.

    Raises:
        ConfigurationError: they are no such sets.
    """
    sets = [given] if isinstance(given, Mapping) else [] if given is None else given
    if not isinstance(sets, list | tuple) or not all(isinstance(each, Mapping) for each in sets):
        raise ConfigurationError(
            f"{macro} = {given!r}: it is a set of flags, {{'xla_tpu_...': True}}, or a list of such sets."
        )
    return {name: value for each in sets for name, value in each.items()}


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that says what a run is.

    Attributes:
        output_dir: the run's folder; a run already there is resumed.
        start: `Initialize`, `Branch` or `Random` (training/start.py).
        sources: name -> path, glob, list of them, "tfds:name" or "python:kind". One that no stage reads is only evaluated.
        stages: what is read when (data/blend.py), in order.
        schedule: the learning rate (training/schedule.py).
        tokens, batch_tokens, sequence_length: target tokens of the run, of a step, and of a packed row.
        seed: of the data order.
        base_final_lr: the learning rate that the base's training ended on, where its folder does not tell.
        also_evaluate: more sources, never trained on: what forgetting is measured by (PROTOCOL.md 8).
        samples: prompts that the run continues now and then, to be read (training/samples.py).
        longer_context: what becomes of the checkpoint's positions (training/longer_context.py).
        optimizer, numerics, mesh: how it is trained; none of these changes which rows are read.
        clip_norm: the largest global gradient norm; None does not clip.
        guard: which steps are refused, and when the run stops over them (training/guard.py).
        average: keep an exponential average of the weights too, of which so large a share stays at each step (0.999).
        freeze: weights that do not move, or not yet (training/freezing.py).
        router_loss: what the load-balancing loss of a mixture of experts is multiplied by, "inherit" for the coefficient of
            the model's config.json; None: that one if config.json says output_router_logits (as in transformers), else 0.
        z_loss: what the mean of log(softmax's denominator) ** 2 is multiplied by, which then is trained on too; 0 does without.
        profile_steps: (first, last), as the log counts steps, of which a profiler trace is written.
        skip_steps: steps to pass over unread, as the log counts them from 1: numbers, and (first, last) pairs.
        accumulation: slices that a step's batch is read in, one after another, to save memory.
        save_every, eval_every: in tokens; None is a tenth and a fifth of the run. The first and the last step are
            always evaluated, the last always saved.
        keep: how many checkpoints stay.
        vocabulary_multiple: the embedding and the head get rows of padding up to such a multiple, for a mesh to cut; None: as
            many as what the run starts from has (a Hugging Face folder none).
        max_epochs: the most often that a source may be read; more is refused before training starts.
        validation_fraction, validation_tokens: how much of each source is held out, and at most how many tokens.
        near_duplicates: the similarity from which two documents are held out, or trained on, together (data/splits.py).
        shares_of: what the stages' weights are shares of, "tokens" or "bytes" (of raw text, PROTOCOL.md 9).
        decontaminate: exam files; documents that hold an item of theirs are neither trained on nor held out (PROTOCOL.md 7).
        packing: how documents become rows: "concatenate_and_split" or "best_fit" (data/packing.py).
        topology, slices: the TPU that mesh, batch and remat were chosen for ("v5p:8x8x8"); only the job `plan` reads them.
        compiler_flags: of libtpu's compiler, for the step, name -> value; or several such sets, of which the later hold. Other
            devices are not told.
        compilation_cache: a folder, on a disk or gs://, where compiled programs are kept for later starts; None: where JAX's
            own JAX_COMPILATION_CACHE_DIR says, or nowhere.
        rows_dir: where packed rows are kept; None is `rows` in output_dir. Runs may share one.
    """

    output_dir: str
    start: Start
    sources: Mapping[str, Where]
    stages: Sequence[Stage]
    schedule: Schedule
    tokens: float
    batch_tokens: float
    sequence_length: float
    seed: int = 0
    base_final_lr: float | None = None
    also_evaluate: Mapping[str, Where] | None = None
    samples: Samples = Samples()
    longer_context: LongerContext = LongerContext()
    optimizer: Optimizer = AdamW()
    clip_norm: float | None = 1.0
    guard: Guard = Guard()
    average: float | None = None
    freeze: Sequence[Freeze] = ()
    router_loss: float | str | None = None
    z_loss: float = 0.0
    profile_steps: Sequence[int] | None = None
    skip_steps: Sequence[int | Sequence[int]] = ()
    numerics: Numerics = Numerics()
    mesh: Mapping[str, int] | None = None
    accumulation: int = 1
    save_every: float | None = None
    eval_every: float | None = None
    keep: int = 3
    vocabulary_multiple: int | None = None
    max_epochs: float | None = None
    validation_fraction: float = SplitSettings.fraction
    validation_tokens: float = SplitSettings.tokens
    near_duplicates: float | None = SplitSettings.near_duplicates
    shares_of: str = TOKENS
    decontaminate: Sequence[str] = ()
    packing: str = CONCATENATE
    rows_dir: str | None = None
    topology: str | None = None
    slices: float = 1
    compiler_flags: Flags | Sequence[Flags] | None = None
    compilation_cache: str | None = None

    def __post_init__(self):
        for name in ("seed", "accumulation", "keep"):  # 2e0 is a whole number too
            object.__setattr__(self, name, whole_number(getattr(self, name), name))
        object.__setattr__(self, "compiler_flags", merged_flags(self.compiler_flags))
        _check_number(self.clip_norm, "CLIP_NORM", "a number above 0, or None", lambda x: x > 0)
        _check_number(self.average, "AVERAGE", "a share between 0 and 1, like 0.999, or None", lambda x: 0 < x < 1)
        if self.router_loss != "inherit":
            what = "a number from 0 on, 'inherit' (the model's own coefficient), or None"
            _check_number(self.router_loss, "ROUTER_LOSS", what, lambda x: 0 <= x < math.inf)
        if self.z_loss is None:
            object.__setattr__(self, "z_loss", 0.0)
        _check_number(self.z_loss, "Z_LOSS", "a number from 0 on, like 1e-4", lambda x: 0 <= x < math.inf)
        object.__setattr__(self, "skip_steps", _spans("SKIP_STEPS", self.skip_steps))
        if self.profile_steps is not None:
            (both,) = _spans("PROFILE_STEPS", [self.profile_steps])
            object.__setattr__(self, "profile_steps", both)
        if not isinstance(self.freeze, list | tuple) or not all(isinstance(each, Freeze) for each in self.freeze):
            raise ConfigurationError(
                f"FREEZE = {self.freeze!r}: it is a list of @freezing.Freeze(), each bound in the gin file (docs/training.md)."
            )
        read = {name for stage in self.stages for name in named(stage.weights)}
        if both := sorted(read.intersection(self.also_evaluate or {})):
            raise ConfigurationError(
                f"ALSO_EVALUATE names {both[0]!r}, which a stage trains on.\n"
                "  It is for sources that are never trained on; those that are trained on are evaluated anyway."
            )

    @property
    def all_sources(self) -> dict[str, Where]:
        """Every source, trained on or only evaluated."""
        return {**self.sources, **(self.also_evaluate or {})}

    def router_loss_of(self, config: DecoderConfig) -> float:
        """The coefficient that a run of this model trains with.

        Raises:
            ConfigurationError: one is named, and the model has no experts.
        """
        if self.router_loss is None:
            return config.router_loss if config.adds_router_loss else 0.0
        if config.experts is None:
            raise ConfigurationError(
                f"ROUTER_LOSS = {self.router_loss!r}, but the model has no experts and no router. Leave it out."
            )
        return config.router_loss if self.router_loss == "inherit" else float(self.router_loss)

    def passes_over(self, step: int) -> bool:
        """Whether `step` (counted from 0) is one of `skip_steps`."""
        return any(first <= step + 1 <= last for first, last in self.skip_steps)


def _check_number(value: object, name: str, what: str, holds: Callable[[float], bool]) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and holds(value)):
        raise ConfigurationError(f"{name} = {value!r}: it is {what}.")


def _spans(name: str, steps: object) -> tuple[tuple[int, int], ...]:
    """(first, last) of each of `steps`, in order; `name` is the macro's."""
    spans = []
    for each in steps if isinstance(steps, list | tuple) else [steps]:
        pair = each if isinstance(each, list | tuple) else (each, each)
        try:
            first, last = (whole_number(step, name, minimum=1) for step in pair)
        except (ValueError, TypeError, ConfigurationError):
            first, last = 1, 0
        if last < first:
            raise ConfigurationError(
                f"{name} = {steps!r}: write steps as the log counts them, from 1, and (first, last) for a span of them."
            )
        spans.append((first, last))
    return tuple(sorted(spans))
