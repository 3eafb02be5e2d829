"""The data of a run, planned or done: which rows it reads when, the rows themselves, and the tokenizer they were made with."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.checkpoints.source import open_checkpoint
from cptjax.data.plan import DataPlan
from cptjax.data.rows import RowReader
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local, read_json
from cptjax.reporting.folder import DATA
from cptjax.training.plan import RunPlan

_AGAIN = (
    "  The run's own command with --gin_file=gin/jobs/inspect_plan.gin behind its recipe prepares them where they are missing;\n"
    "  or put the folder back."
)


@dataclasses.dataclass(frozen=True)
class RunData:
    """Everything that tells what a run reads.

    Attributes:
        path: the run's folder.
        train: a reader for each source of the plan; held_out: for each source of which something is held out, also of those
            that are only evaluated.
        passed_over: steps (counted from 0) that the run was told not to read.
    """

    path: str
    plan: DataPlan
    train: Mapping[str, RowReader]
    held_out: Mapping[str, RowReader]
    tokenizer: Tokenizer
    passed_over: Sequence[int] = ()


def planned_data(plan: RunPlan) -> RunData:
    """The data of a run that is worked out, and perhaps never trained."""
    held_out = {name: source.validation for name, source in plan.prepared.items() if source.validation is not None}
    return RunData(
        str(plan.folder.path),
        plan.data,
        {name: RowReader(plan.prepared[name].train) for name in plan.data.names},
        {name: RowReader(folder) for name, folder in held_out.items()},
        plan.tokenizer,
        [step for step in range(plan.steps) if plan.run.passes_over(step)] if plan.run.skip_steps else (),
    )


def recorded_data(checkpoint: str) -> RunData:
    """The data of the run in the folder `checkpoint` (or of one of its checkpoints), as its newest checkpoint and data.json tell.

    Raises:
        ConfigurationError: no run of ours, one without a checkpoint, or one that does not tell where its rows are.
        CptjaxError: its rows are gone, or are others now.
    """
    opened = open_checkpoint(checkpoint)
    if opened.store is None:
        raise ConfigurationError(
            f"CHECKPOINT = '{checkpoint}' is a Hugging Face folder, which does not tell what it was trained on.\n"
            "  Name the folder of a run; what a run would read is shown by gin/jobs/inspect_plan.gin behind its recipe."
        )
    folder = epath.Path(opened.store.directory).parent
    planned = opened.metadata.get("plan", {}).get("data")
    if planned is None:
        raise ConfigurationError(f"The checkpoint of step {opened.step} in '{folder}' holds no plan of the data.")
    plan = DataPlan.from_json(json.dumps(planned))
    record = read_json(folder / DATA)
    missing = [name for name in plan.names if "rows" not in record.get(name, {})]
    if missing:
        raise ConfigurationError(
            f"{folder / DATA} does not tell where the rows of {missing[0]!r} are: an older cptjax wrote it.\n"
            f"  Give the run's own command with --gin_file=gin/jobs/inspect_plan.gin behind its recipe: it finds them."
        )
    tokenizer = open_tokenizer(str(opened.model_folder))
    train = {name: _reader(folder, record[name]["rows"], name, tokenizer) for name in plan.names}
    for name, reader in train.items():
        _refuse_other_rows(reader, name, plan.sources[name].fingerprint)
    held_out = {
        name: _reader(folder, source["held_out_rows"], name, tokenizer)
        for name, source in record.items()
        if source.get("held_out_rows")
    }
    for name, reader in held_out.items():
        if reader.manifest.tokens != record[name]["held_out_tokens"]:
            raise CptjaxError(
                f"{reader.folder} holds other held-out text of {name!r} now than the run measured.\n{_AGAIN}"
            )
    return RunData(str(folder), plan, train, held_out, tokenizer, opened.metadata.get("passed_over", ()))


def rows_record(train: str, held_out: str | None) -> dict[str, Any]:
    """Where a source's rows are, for data.json: wherever the run was started from, it says the same."""
    return {"rows": _absolute(train), "held_out_rows": None if held_out is None else _absolute(held_out)}


def _absolute(folder: str) -> str:
    return os.path.abspath(folder) if is_local(folder) else folder


def _reader(run: epath.Path, recorded: str, name: str, tokenizer: Tokenizer) -> RowReader:
    """The rows where they were, or where they are when the run's folder was moved with its rows in it."""
    was = epath.Path(recorded)
    moved = run / "rows" / was.parent.name / was.name
    found = next((each for each in (was, moved) if each.exists()), None)
    if found is None:
        raise CptjaxError(f"the rows of {name!r}, which '{run}' was trained on, are not at {was} any more.\n{_AGAIN}")
    reader = RowReader(str(found))
    if reader.manifest.tokenizer["fingerprint"] != tokenizer.fingerprint:
        raise CptjaxError(
            f"{found} was made with another tokenizer than that of '{run}': its tokens would be read as other text.\n{_AGAIN}"
        )
    return reader


def _refuse_other_rows(reader: RowReader, name: str, fingerprint: str) -> None:
    if reader.manifest.fingerprint != fingerprint:
        raise CptjaxError(
            f"{reader.folder} holds other rows of {name!r} now than those of the plan "
            f"({reader.manifest.fingerprint[:12]} there, {fingerprint[:12]} in the plan).\n{_AGAIN}"
        )
