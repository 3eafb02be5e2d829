"""What a run reads: the rows of a step as text, and what its sources hold."""

import contextlib
from collections.abc import Iterator, Sequence

from etils import epath

from cptjax.checkpoints.store import CheckpointStore
from cptjax.configuration.values import whole_number
from cptjax.data.contamination import open_exams
from cptjax.data.inspection import inspect_plan
from cptjax.data.plan_table import table
from cptjax.data.sources import find_source
from cptjax.data.step_rows import rows_of_step
from cptjax.errors import ConfigurationError
from cptjax.files import write_file
from cptjax.reporting.folder import INSPECTION
from cptjax.training.plan import dry_plan, plan_run
from cptjax.training.records import refuse_another_run
from cptjax.training.run import Run
from cptjax.training.run_data import RunData, planned_data, recorded_data

ROWS_PAGE, ROWS, PAGE, RECORD = "rows.html", "rows.jsonl", "inspection.html", "inspection.json"


def inspect_data(
    checkpoint: str | None = None,
    run: Run | None = None,
    output_dir: str | None = None,
    step: float | None = None,
    statistics: bool = True,
    exams: Sequence[str] = (),
    most_rows: float = 64,
    dry_run: bool = False,
) -> None:
    """Shows what a run reads: a step's rows with sources, ids and text; lengths, shares, duplicates, exam items of its plan.

    Writes `step_<step>/rows.html` and `rows.jsonl` where a step is named, and `inspection.html` and `inspection.json`.

    Args:
        checkpoint: the folder of a run, or one of its checkpoints: what it reads is as it was planned.
        run: or a run that is only described: its rows are prepared where they are missing.
        output_dir: where the pages go; None: `inspection` in the folder of `run`.
        step: as the log counts, from 1.
        statistics: False: the rows of the step alone.
        exams: exam files (paths or globs), whose items are looked for in the training rows.
        most_rows: the most rows that a page shows; rows.jsonl has all.

    Raises:
        ConfigurationError: there is no such run or step, or it does not tell what it read.
        CptjaxError: the rows are gone, or are others now.
    """
    if (checkpoint is None) == (run is None):
        raise ConfigurationError("inspect_data takes either CHECKPOINT or a recipe's run (gin/jobs/inspect_plan.gin).")
    most_rows = whole_number(most_rows, "MOST_ROWS", minimum=1)
    step = None if step is None else whole_number(step, "STEP", minimum=1)
    if step is None and not statistics:
        raise ConfigurationError("STATISTICS = False leaves only the rows of a step, and there is no STEP.")
    if exams and not statistics:
        raise ConfigurationError("EXAMS are looked for by the statistics: set STATISTICS = True, or leave EXAMS out.")
    folder = _output(run, output_dir)
    examined = open_exams(find_source("exams", exams).files) if exams else None

    # --- What is read ---
    with _opened(checkpoint, run, dry_run) as data:
        plan = data.plan
        if step is not None and step > plan.steps:
            raise ConfigurationError(
                f"STEP = {step:,}, but the run at '{data.path}' has {plan.steps:,} steps (from 1)."
            )
        name = epath.Path(data.path).name
        print(f"{data.path}: {plan.steps:,} steps of {plan.batch_rows:,} rows")
        print("\n".join(table(plan)))
        if dry_run:
            written = [] if step is None else [f"step_{step}/{each}" for each in (ROWS_PAGE, ROWS)]
            print(f"would write into {folder}: {', '.join(written + ([PAGE, RECORD] if statistics else []))}")
            return

        # --- The rows of a step ---
        from cptjax.reporting.inspection_page import describe_inspection, inspection_json, inspection_page
        from cptjax.reporting.rows_page import describe_rows, rows_lines, rows_page  # matplotlib and jinja2, only now

        if step is not None:
            rows = list(rows_of_step(data.train, plan, data.tokenizer, step - 1))
            passed = step - 1 in data.passed_over
            print("\n".join(describe_rows(plan, rows)))
            if passed:
                print(f"the run was told to pass over step {step:,}: these rows were not read")
            html = rows_page(name, data.path, plan, rows, data.tokenizer, most_rows, passed)
            _write(folder / f"step_{step}", {ROWS_PAGE: html, ROWS: rows_lines(rows)})

        # --- What the sources hold ---
        if statistics:
            found = inspect_plan(plan, data.train, data.held_out, data.tokenizer, examined, print)
            print("\n".join(describe_inspection(found)))
            _write(folder, {PAGE: inspection_page(name, data.path, found), RECORD: inspection_json(found)})


@contextlib.contextmanager
def _opened(checkpoint: str | None, run: Run | None, dry_run: bool) -> Iterator[RunData]:
    """The data of the run; a dry run packs what is missing into a folder that goes away."""
    if checkpoint is not None:
        yield recorded_data(checkpoint)
        return
    with dry_plan(run) if dry_run else contextlib.nullcontext(plan_run(run)) as plan:
        refuse_another_run(plan, CheckpointStore(plan.folder.checkpoints))
        yield planned_data(plan)


def _output(run: Run | None, output_dir: str | None) -> epath.Path:
    if output_dir is None and run is None:
        raise ConfigurationError("OUTPUT_DIR is not set: name the folder that the pages go to.")
    folder = epath.Path(run.output_dir if output_dir is None else output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' is a file; name a folder.")
    return folder / INSPECTION if output_dir is None else folder


def _write(folder: epath.Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_file(folder / name, content)
        print(f"wrote {folder / name}")
