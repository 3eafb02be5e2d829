"""A run worked out before anything starts: what it starts from, what will be read, and when.

`train` carries a plan out; `--dry_run` prints it. Both take the same `Run`, so what is planned is what is trained.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.checkpoints.hub import find_tokenizer
from cptjax.checkpoints.lineage import Lineage, Origin
from cptjax.checkpoints.source import OpenedCheckpoint, counted, open_checkpoint
from cptjax.checkpoints.store import CheckpointStore
from cptjax.configuration.values import whole_number
from cptjax.data.blend import Blend
from cptjax.data.plan import DataPlan
from cptjax.data.planning import plan_data
from cptjax.data.prepare import PreparedSource, ensure_rows
from cptjax.data.tokenizer import Tokenizer, open_tokenizer, refuse_rows_too_few
from cptjax.errors import ConfigurationError
from cptjax.files import is_local
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.registry import family_of
from cptjax.reporting.folder import RunFolder
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.processes import first_then_others
from cptjax.training.lengths import steps_for_tokens
from cptjax.training.longer_context import changes, lengthened
from cptjax.training.outline import Outline, outline_run
from cptjax.training.run import Run
from cptjax.training.start import Branch, Random, Start, open_start


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan(Outline):
    """A run worked out: what there is, what will be read, and when. Nothing has started yet.

    longer_context: the fields of the model's config that this run changed, with their values from now on.
    """

    folder: RunFolder
    resumed: bool
    source: OpenedCheckpoint | None
    ancestors: Lineage
    started_from: str
    longer_context: Mapping[str, Any]
    family: Family
    original_config: dict[str, Any]
    model_folder: epath.Path
    tokenizer: Tokenizer
    prepared: Mapping[str, PreparedSource]
    data: DataPlan
    save_steps: int
    eval_steps: int
    sample_steps: int | None
    sample_prompts: Sequence[Sequence[int]]

    @property
    def origin(self) -> str:
        """Where the weights come from, in a few words."""
        if self.source is None:
            return f"this run's own checkpoint in {self.folder.path}" if self.resumed else "random weights"
        step = "" if self.source.step is None else f", step {self.source.step:,}"
        return f"{type(self.run.start).__name__.lower()} from {self.source.path}{step}"

    @property
    def source_names(self) -> tuple[str, ...]:
        """The sources that are read, in the order in which a batch counts them."""
        return self.data.names

    def samples_at(self, step: int) -> bool:
        """Whether the run's prompts are continued after `step` steps."""
        return self.sample_steps is not None and (step % self.sample_steps == 0 or step == self.steps)

    def identity(self) -> dict[str, Any]:
        """What decides the run's numbers, as plain data. A run is resumed only under the same; the mesh may change."""
        return {
            "model": self.config.to_json(),
            **({"router_loss": self.router_loss} if self.router_loss else {}),
            **({"z_loss": float(self.run.z_loss)} if self.run.z_loss else {}),
            "compute_dtype": self.run.numerics.compute_dtype,
            "optimizer": {"name": type(self.run.optimizer).__name__, **dataclasses.asdict(self.run.optimizer)},
            "clip_norm": self.run.clip_norm,
            "average": self.run.average,
            "freeze": [dataclasses.asdict(each) for each in self.run.freeze],
            "guard_window": self.run.guard.window,
            "start": {"verb": type(self.run.start).__name__, **_settings(self.run.start)},
            "learning_rate": dataclasses.asdict(self.learning_rate),
            "steps": self.steps,
            "batch_rows": self.batch_rows,
            "sequence_length": self.sequence_length,
            "data": json.loads(self.data.to_json()),
            **({"longer_context": self.run.longer_context.asked} if self.run.longer_context.asked else {}),
        }


def plan_run(run: Run, rows_root: str | None = None) -> RunPlan:
    """Works a run out: opens what it starts from (no weights), packs its text if that is not done, and plans the rest.

    Args:
        rows_root: where rows are kept, when that is not where the run says (a dry run uses a folder that goes away).

    Raises:
        ConfigurationError, CptjaxError: anything about the run that cannot be, before anything has started.
    """
    folder = RunFolder(run.output_dir)
    store = CheckpointStore(folder.checkpoints)
    resumed = open_checkpoint(folder.path) if store.latest() is not None else None
    source = None if resumed else open_start(run.start, run.optimizer, run.freeze)
    ancestors = _ancestors(run.start, resumed, source)
    config, family, original, model_folder = _model(run.start, resumed or source)
    longer_context = (resumed.lineage.runs[-1].longer_context or {}) if resumed else {}
    if run.longer_context.asked and not resumed:  # a resumed run's model/ has it, and records.py compares what is asked
        before, config = config, _lengthened(run, config)
        longer_context, original = changes(before, config), family.write_config(config, original)
    if run.vocabulary_multiple is not None:
        config = config.padded(whole_number(run.vocabulary_multiple, "VOCABULARY_MULTIPLE", minimum=1))
    carried = isinstance(run.start, Branch) and run.start.moments == "carry"
    if carried and source and source.config.vocabulary_rows != config.vocabulary_rows:
        raise ConfigurationError(
            f"VOCABULARY_MULTIPLE = {run.vocabulary_multiple} makes {config.vocabulary_rows:,} rows of the embedding; "
            f"'{source.path}' has {source.config.vocabulary_rows:,}, and moments for them.\n"
            "  Leave VOCABULARY_MULTIPLE None, or set MOMENTS = 'reset'."
        )

    known = ancestors.final_learning_rate()
    if known is not None and run.base_final_lr is not None and run.base_final_lr != known:
        raise ConfigurationError(
            f"BASE_FINAL_LR = {run.base_final_lr:g}, but the lineage of {_named(source) or folder.path} says {known:g}.\n"
            "  Leave BASE_FINAL_LR out, or set PEAK_LEARNING_RATE to the number you want."
        )
    inherited = run.base_final_lr if known is None else known
    outline = outline_run(run, config, build_mesh(run.mesh), inherited)
    steps, batch_rows, length = outline.steps, outline.batch_rows, outline.sequence_length
    blend = Blend(run.stages)

    tokenizer = open_tokenizer(model_folder)
    refuse_rows_too_few(tokenizer, config.vocabulary, f"the model at '{model_folder}'")
    sampled = run.samples.every is not None
    sample_prompts = run.samples.encoded(tokenizer, config) if sampled else []
    unknown = [name for name in blend.sources if name not in run.sources]
    if unknown:
        raise ConfigurationError(f"a stage reads {unknown[0]!r}, but the run's sources are {', '.join(run.sources)}.")
    prepared = first_then_others(
        lambda: ensure_rows(
            run.all_sources,
            str(model_folder),
            length,
            rows_root or str(epath.Path(run.rows_dir or folder.path / "rows").expanduser()),
            validation_fraction=run.validation_fraction,
            validation_tokens=whole_number(run.validation_tokens, "validation_tokens", minimum=1),
            near_duplicates=run.near_duplicates,
            packing=run.packing,
            exams=run.decontaminate,
        )
    )
    data = plan_data(
        outline.stages,
        {name: prepared[name].info for name in blend.sources},
        batch_rows,
        run.seed,
        max_epochs=run.max_epochs,
        shares_of=run.shares_of,
        start_rows=_start_rows(run, ancestors, {name: prepared[name] for name in blend.sources}),
        epochs_before=_epochs_before(run, ancestors, prepared),
    )
    every = {
        name: -(-steps // share)  # rounded up: no evaluation a few steps before the last one
        if value is None
        else steps_for_tokens(whole_number(value, name, minimum=1), batch_rows * length)
        for name, value, share in (("SAVE_EVERY", run.save_every, 10), ("EVAL_EVERY", run.eval_every, 5))
    }
    return RunPlan(
        **vars(outline),
        folder=folder,
        resumed=resumed is not None,
        source=source,
        ancestors=ancestors,
        started_from=resumed.lineage.runs[-1].started_from if resumed else _named(source),
        longer_context=longer_context,
        family=family,
        original_config=original,
        model_folder=model_folder,
        tokenizer=tokenizer,
        prepared=prepared,
        data=data,
        save_steps=every["SAVE_EVERY"],
        eval_steps=every["EVAL_EVERY"],
        sample_steps=steps_for_tokens(run.samples.every, batch_rows * length) if sampled else None,
        sample_prompts=sample_prompts,
    )


@contextlib.contextmanager
def dry_plan(run: Run) -> Iterator[RunPlan]:
    """The plan of `run` with nothing left behind: rows that are there are used, others packed into a folder that goes away."""
    kept = epath.Path(run.rows_dir or epath.Path(run.output_dir) / "rows").expanduser()
    with tempfile.TemporaryDirectory(prefix="cptjax_rows_") as root:
        if is_local(kept) and kept.is_dir():
            for folder in (each for each in kept.iterdir() if not each.name.startswith(".")):  # not what is unfinished
                os.symlink(os.path.abspath(folder), os.path.join(root, folder.name))
        yield plan_run(run, rows_root=root)


def _settings(start: Start) -> dict[str, Any]:
    """What a start is told, as plain data."""
    told = {field.name: getattr(start, field.name) for field in dataclasses.fields(start)}
    for name in ("checkpoint", "tokenizer"):
        if name in told:
            told[name] = str(epath.Path(told[name]))  # a slash at the end names the same folder
    del told["model"]  # of a checkpoint it is only what is expected, and the config is compared by itself
    return told | ({"model": start.model.to_json()} if isinstance(start, Random) else {})


def _ancestors(start: Start, resumed: OpenedCheckpoint | None, source: OpenedCheckpoint | None) -> Lineage:
    if resumed is not None:
        return resumed.lineage.ancestors
    if source is not None:
        return source.lineage
    return Lineage(Origin("random", "", f"seed {start.seed}", counted(start.model)))


def _model(start: Start, opened: OpenedCheckpoint | None) -> tuple[DecoderConfig, Family, dict[str, Any], epath.Path]:
    """The model's config, its family, the config.json it is written as, and the folder that its tokenizer is in."""
    if opened is not None:
        return opened.config, opened.family, opened.original_config, opened.model_folder
    family = family_of({"model_type": start.family}, "Random.family")
    folder = find_tokenizer(start.tokenizer)
    tokenizer = open_tokenizer(folder)
    # What begins and ends a text may stand in a config.json beside the tokenizer, which is not carried: said here.
    special = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    written = family.write_config(start.model, None) | {
        name: value for name, value in special.items() if value is not None
    }
    return start.model, family, written, epath.Path(folder)


def _lengthened(run: Run, config: DecoderConfig) -> DecoderConfig:
    """The checkpoint's model, reaching as far as the run says."""
    if isinstance(run.start, Random):
        name, value = next(iter(run.longer_context.asked.items()))
        raise ConfigurationError(
            f"{name} = {value!r} changes the positions of a checkpoint, and this run starts from random weights.\n"
            "  Say it of the model: config.DecoderConfig.maximum_length, .rope_theta, .rope_scaling."
        )
    return lengthened(config, run.longer_context)


def _start_rows(run: Run, ancestors: Lineage, prepared: Mapping[str, PreparedSource]) -> dict[str, int]:
    """Rows of each source to pass over: those that the trunk read, when a branch goes on past them.

    Raises:
        ConfigurationError: the trunk read them in another order (its seed) or under another name, so that what was read
            could not be told from what was not.
    """
    if not (isinstance(run.start, Branch) and run.start.data == "continue"):
        return {}
    if run.seed != ancestors.runs[-1].seed:
        raise ConfigurationError(
            f"DATA = 'continue' goes on in the order of the trunk, whose seed is {ancestors.runs[-1].seed}, not {run.seed}.\n"
            f"  Set SEED = {ancestors.runs[-1].seed}, or DATA = 'anew'."
        )
    read = {exposure.fingerprint: (name, exposure.rows) for name, exposure in ancestors.exposures().items()}
    rows = {}
    for name, source in prepared.items():
        theirs, count = read.get(source.info.fingerprint, (name, 0))
        if theirs != name:
            raise ConfigurationError(
                f"DATA = 'continue', but the trunk read the rows of {name!r} under the name {theirs!r}.\n"
                "  The order of rows depends on the name: keep it, or set DATA = 'anew'."
            )
        rows[name] = count
    return rows


def _epochs_before(run: Run, ancestors: Lineage, prepared: Mapping[str, PreparedSource]) -> dict[str, float]:
    """How often a branch's ancestors have read each source, under whatever name."""
    if not isinstance(run.start, Branch):
        return {}
    read: dict[str, float] = {}
    for exposure in ancestors.exposures().values():
        read[exposure.fingerprint] = read.get(exposure.fingerprint, 0) + exposure.epochs
    return {name: read.get(source.info.fingerprint, 0.0) for name, source in prepared.items()}


def _named(source: OpenedCheckpoint | None) -> str:
    """What a run starts from, with its step; "" for random weights."""
    return "" if source is None else f"{source.path}" + ("" if source.step is None else f", step {source.step}")
