"""The text that a study's finished steps have read, against the text that those to come would read."""

from collections.abc import Sequence

from cptjax.errors import ConfigurationError
from cptjax.reporting.reproduction import text_checks
from cptjax.studies.ledger import PlannedStep, with_dependents


def refuse_changed_text(steps: Sequence[PlannedStep]) -> None:
    """Refuses to go on from finished steps whose text has changed since: some steps would have read one, some the other.

    Reads every file of those steps' sources once. Where nothing is left to do, nothing is read.

    Raises:
        ConfigurationError: each such step with its sources, and what to do.
    """
    if all(step.done for step in steps):
        return
    known: dict[str, list[str]] = {}
    checks = {step.step.name: text_checks(step.folder, known) for step in steps if step.done}
    changed = {name: different for name, all_ in checks.items() if (different := [c for c in all_ if not c.same])}
    if not changed:
        return
    lines = [f"  {name}: {check.what}: {check.now}" for name, different in changed.items() for check in different]
    remove = [f"    {step.in_the_way}" for step in with_dependents(steps, changed)]
    raise ConfigurationError(
        f"the study in '{steps[0].folder.parent}' would go on with other text than its finished steps have read:"
        f" {', '.join(map(repr, changed))}.\n"
        + "\n".join(lines)
        + "\n  Restore that text (python:... changes with the packages that are installed); or name another OUTPUT_DIR;\n"
        "  or remove this, and these steps are run again:\n" + "\n".join(remove)
    )
