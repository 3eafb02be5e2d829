"""The runs of a group as a study writes them: each by what it has of its own beside the run that the gin files describe."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.checkpoints.store import CheckpointStore
from cptjax.configuration.values import whole_number
from cptjax.data.blend import LrFraction, Stage
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.reporting.folder import FINISHED, RUN
from cptjax.training.group import DOCUMENTS, JOB, GroupRun
from cptjax.training.lengths import steps_for_tokens
from cptjax.training.plan import plan_run
from cptjax.training.records import refuse_another_run
from cptjax.training.run import Run
from cptjax.training.schedule import INHERIT
from cptjax.training.start import Branch, Initialize, Random

RATES = "rates.json"  # what `find_rates` writes: the best of several learning rates
VERBS = ("random", "initialize", "branch")


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a group.

    Attributes:
        name: of its folder in the group's.
        blend: shares of tokens by source; tokens: all that it reads. then: another blend, from where the learning rate has fallen
            to `switch` of its peak; None: the first throughout.
        learning_rate: its peak; "inherit" for that of the trunk; or the folder of a `find_rates`, whose best is taken.
        rate_factor: what the rate is multiplied by (from the size that it was found at to this one).
        seed: of the data order; weights_seed: of random weights.
        verb: how it starts, from `checkpoint` unless "random"; checkpoint_tokens: which of its checkpoints, None the last.
        save_at: tokens after which it is saved too, for branches.
    """

    name: str
    blend: Mapping[str, float]
    tokens: float
    learning_rate: float | str
    rate_factor: float = 1.0
    seed: int = 0
    weights_seed: int = 0
    verb: str = "random"
    checkpoint: str | None = None
    checkpoint_tokens: float | None = None
    save_at: Sequence[float] = ()
    then: Mapping[str, float] | None = None
    switch: float = 0.2

    def __post_init__(self):
        if self.verb not in VERBS or (self.verb == "random") != (self.checkpoint is None):
            raise ConfigurationError(
                f"the run {self.name!r} of the group starts by {self.verb!r} from {self.checkpoint!r}: the verbs are"
                f" {', '.join(VERBS)}, and all but 'random' name a checkpoint."
            )


def read_members(runs: Sequence[Mapping[str, Any]]) -> list[Member]:
    """The members that a gin file's RUNS describes.

    Raises:
        ConfigurationError: a key that a run does not have, one that it lacks, or two runs of one name.
    """
    known = {field.name for field in dataclasses.fields(Member)}
    members = []
    for place, run in enumerate(runs, start=1):
        missing = {"name", "blend", "tokens", "learning_rate"} - set(run)
        if missing or set(run) - known:
            raise ConfigurationError(
                f"RUNS, number {place}: "
                + (
                    f"{', '.join(sorted(missing))} missing"
                    if missing
                    else f"{', '.join(sorted(set(run) - known))} unknown"
                )
                + f"; a run has {', '.join(field.name for field in dataclasses.fields(Member))}."
            )
        members.append(Member(**run))
    names = [member.name for member in members]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"RUNS has no runs, or two of one name: {', '.join(names) or 'none'}.")
    return members


def planned(run: Run, member: Member, folder: epath.Path) -> GroupRun:
    """The member worked out, in a folder of its own; nothing has started.

    What an interrupted run of a group had saved there is removed: it begins again.

    Raises:
        ConfigurationError: a run that no group made is there, or a finished one of other settings.
    """
    where = folder / member.name
    _refuse_foreign(where)
    if not (where / FINISHED).exists() and (where / "checkpoints").exists():
        (where / "checkpoints").rmtree()
    plan = plan_run(run_of(run, member, where))
    refuse_another_run(plan, CheckpointStore(plan.folder.checkpoints))
    tokens = [whole_number(each, "save_at", minimum=1) for each in member.save_at]
    save_at = tuple(sorted({steps_for_tokens(each, plan.batch_tokens) for each in tokens} - {plan.steps}))
    return GroupRun(plan, save_at)


def _refuse_foreign(where: epath.Path) -> None:
    """Refuses a folder with a run that is not a group's: what the job `train` had saved is not ours to remove."""
    if not (where / RUN).exists() or (where / DOCUMENTS).exists():  # which a group alone writes, of a finished run
        return
    if any(start.get("made_by") != JOB for start in read_json(where / RUN)["starts"]):
        raise ConfigurationError(
            f"'{where}' holds a run that is not of a group: it is neither removed nor gone on with.\n"
            "  Name another OUTPUT_DIR, or another run in RUNS; or move that folder away."
        )


def run_of(run: Run, member: Member, folder: epath.Path) -> Run:
    """`run` with what the member has of its own.

    Raises:
        ConfigurationError: the gin files' run does not say which model random weights are of.
    """
    if not isinstance(run.start, Random):
        raise ConfigurationError("a group's run starts by @start.Random(): it says the model and the tokenizer of all.")
    if member.verb == "random":
        start = dataclasses.replace(run.start, seed=member.weights_seed)
    else:
        step = None
        if member.checkpoint_tokens is not None:
            step = steps_for_tokens(whole_number(member.checkpoint_tokens, "checkpoint_tokens"), int(run.batch_tokens))
        if member.verb == "branch":  # past what the trunk read, in its order
            start = Branch(member.checkpoint, step, data="continue", model=run.start.model)
        else:
            start = Initialize(member.checkpoint, step, model=run.start.model)
    return dataclasses.replace(
        run,
        output_dir=str(folder),
        start=start,
        stages=_stages(member),
        tokens=member.tokens,
        seed=member.seed,
        schedule=dataclasses.replace(run.schedule, peak=rate_of(member)),
    )


def _stages(member: Member) -> tuple[Stage, ...]:
    if member.then is None:
        return (Stage(member.name, dict(member.blend)),)
    return (
        Stage(member.name, dict(member.blend), until=LrFraction(member.switch)),
        Stage(f"{member.name}_then", dict(member.then)),
    )


def rate_of(member: Member) -> float | str:
    """The member's peak learning rate, looked up where another step found it."""
    rate = member.learning_rate
    if isinstance(rate, str) and rate != INHERIT:
        found = read_json(epath.Path(rate) / RATES)
        return float(found["best"]) * member.rate_factor
    return rate if rate == INHERIT else float(rate) * member.rate_factor
