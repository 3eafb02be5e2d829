"""A run, or several beside each other, as one page that needs nothing else."""

from collections.abc import Mapping, Sequence

from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import labelled
from cptjax.evaluation.result_row import as_json_lines
from cptjax.files import write_file
from cptjax.reporting.comparison import evaluated_base, read_evaluation
from cptjax.reporting.run_content import read_run


def report(
    checkpoints: str | Sequence[str] | Mapping[str, str],
    output_dir: str,
    evaluation: str | None = None,
    base: str | None = None,
    targets: Sequence[str] | None = None,
    forgetting: Sequence[str] | None = None,
    title: str | None = None,
    dry_run: bool = False,
) -> None:
    """Writes `<output_dir>/report.html` for the runs whose folders `checkpoints` names, and of an evaluation its tables as
    Markdown and LaTeX beside it (tables.md, tables.tex).

    Args:
        checkpoints: a run's folder, several (labelled by the last parts of their paths), or label -> folder; labels are
            those of the evaluation.
        output_dir: where report.html goes; a run's own folder will do.
        evaluation: the folder that `evaluate` wrote, or its evaluation.jsonl.
        base: the label in the evaluation that the others are compared with; None: that of the evaluation.
        targets, forgetting: domains that the runs were to learn, and those that they may forget; None: worked out.

    Raises:
        ConfigurationError: something that is named is not there, or was not evaluated.
    """
    runs = [read_run(path, label) for label, path in labelled(checkpoints).items()]
    rows = None if evaluation is None else read_evaluation(evaluation)
    if rows is None and base is not None:
        raise ConfigurationError(
            f"BASE = {base!r} is a checkpoint in an evaluation, and there is no EVALUATION.\n"
            "  Name what the job `evaluate` wrote, or leave BASE out: then each run is compared with its own start."
        )
    if rows is not None and base is None:
        base = evaluated_base(evaluation)
    folder = epath.Path(output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' is a file; name a folder.")
    for run in runs:
        state = "finished" if run.finished else "not finished"
        print(
            f"{run.label}: {run.path}, step {run.last_step:,}, {state}" + "".join(f"\n  {note}" for note in run.notes)
        )
    if rows is not None:
        print(f"{evaluation}: {len(rows):,} rows")
    from cptjax.reporting.report import (
        REPORT,
        evaluation_tables,
        evaluation_trades,
        page,
    )  # matplotlib and jinja2, only now
    from cptjax.reporting.savings import TRADES
    from cptjax.reporting.table_text import as_latex, as_markdown

    files = {REPORT: page(runs, rows, base, targets, forgetting, title)}
    if rows is not None:
        tables = evaluation_tables(runs, rows, base, targets, forgetting)
        files[TRADES] = as_json_lines(evaluation_trades(runs, rows, base, targets, forgetting))
        files |= {"tables.md": as_markdown(tables), "tables.tex": as_latex(tables)}
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if dry_run:
            print(f"would write {folder / name} ({len(content.encode()):,} bytes)")
        else:
            write_file(folder / name, content)
            print(f"wrote {folder / name}")
