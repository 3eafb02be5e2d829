"""The table of an evaluation, for a terminal: a line for each number, a column for each checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.evaluation.bootstrap import FEW_DOCUMENTS

EVALUATION = "evaluation.jsonl"
UNITS = {"loss": "nats/token", "bits_per_byte": "bits/byte", "kl": "KL, nats/token", "oracle_loss": "by an oracle"}
EXAM_UNITS = {  # in the order of the table; margins are in evaluation.jsonl
    "letter_accuracy": "letter accuracy",
    "letter_accuracy_as_written": "  as written",
    "letter_answer_prior": "  answer prior",
    "letter_perplexity": "  perplexity",
    "cloze_accuracy": "cloze accuracy",
    "cloze_accuracy_per_character": "  per character",
    "cloze_accuracy_per_byte": "  per byte",
    "cloze_answer_prior": "  answer prior",
    "cloze_perplexity": "  perplexity",
    "chance": "chance",
    "majority_letter": "majority letter",
    "contaminated": "in training text",
}
EXAM_CLEAN = "exam_clean"  # the suite of exams without the questions that stand in a checkpoint's training text
COUNTS = ("contaminated",)  # metrics that are numbers of something
CHANGE = "_change"  # a row of the metric "loss_change" holds the change of "loss" from the base, and its own interval
P_VALUE = "_p"  # a row of the metric "cloze_accuracy_p": how likely such a change is between two that are equally good
# Suites: groups of documents; documents in overlapping windows; what follows the tokens that a system routes on.
BY_FIELD, IN_WINDOWS, AFTER_PREFIX = "loss_by_field", "loss_in_windows", "after_prefix"
_ALSO_DOCUMENTS = (BY_FIELD, IN_WINDOWS, AFTER_PREFIX)
CURVES = "curves"  # the suite of what runs saved over others at equal loss (evaluation/savings.py)
CURVE_UNITS = {
    "transferred_tokens": "tokens saved at equal loss (transferred data)",
    "flops_saved": "FLOPs saved, marginal: share",
    "flops_saved_with_source": "FLOPs saved, with the source model's own: share",
    "efficiency_gain": "tokens saved to the other curve's last loss: share",
    "sger_at_best": "cost ratio, each at its lowest loss",
    "sger_to_general_best": "cost ratio to the general run's lowest loss",
    "sger_null": "cost ratio to expect, 1/p",
    "matched_loss": "the loss at which both are read",  # these four: evaluation/matched_rows.py
    "forgetting": "forgetting at that loss",
    "forgetting_of_first": "forgetting of the first curve at that loss",
    "forgetting_difference": "forgetting at that loss, less the first curve's",
}
_NARROWEST = 20


def without_curves(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that are of one checkpoint each."""
    return [row for row in rows if row["suite"] != CURVES]


def results_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines: what was measured, its unit, then each checkpoint's value, with its change from the base behind it.

    Args:
        rows: as evaluation.jsonl has them. Where they hold no change there is none to show: losses per token of different
            tokenizers are not compared.
    """
    rows = without_curves(rows)
    checkpoints = list(dict.fromkeys(row["checkpoint"] for row in rows))
    values = {(row["suite"], row["subset"], row["metric"], row["checkpoint"]): row["value"] for row in rows}
    width = max([_NARROWEST, *map(len, checkpoints)])
    lines = [f"{'':24} {'':15}" + "".join(f" {name:>{width}}" for name in checkpoints)]
    named = ""
    units = UNITS | EXAM_UNITS
    for suite, subset, metric in _in_order(rows):
        cells = []
        for name in checkpoints:
            value = values.get((suite, subset, metric, name))
            change = values.get((suite, subset, metric + CHANGE, name))
            form = ".0f" if metric in COUNTS else ".4f"
            cell = ("-" if value is None else f"{value:{form}}") + ("" if change is None else f" ({change:+.3f})")
            cells.append(f" {cell:>{width}}")
        label = _named(suite, subset)
        lines.append(f"{label if label != named else '':24} {units[metric]:15}" + "".join(cells))
        named = label
    return lines


def _named(suite: str, subset: str) -> str:
    of_loss = {"loss": subset, BY_FIELD: subset, IN_WINDOWS: f"{subset}, in windows"}
    of_loss[AFTER_PREFIX] = f"{subset}, after prefix"
    return {**of_loss, "exam": f"exam {subset}", EXAM_CLEAN: f"exam {subset}, clean"}.get(
        suite, f"{subset}'s own samples"
    )


def few_documents(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each suite that has losses over fewer than FEW_DOCUMENTS held-out documents, as they are reported."""
    few: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["metric"] == "loss" and row["suite"] in ("loss", *_ALSO_DOCUMENTS) and row["n"] < FEW_DOCUMENTS:
            of = few.setdefault(row["suite"], {})
            label = _named(row["suite"], row["subset"])
            of[label] = min(row["n"], of.get(label, row["n"]))
    return [
        f"fewer than {FEW_DOCUMENTS} held-out documents, so that intervals say little (VALIDATION_TOKENS): "
        + ", ".join(f"{label} ({n})" for label, n in of.items())
        for of in few.values()
    ]


def _in_order(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What the table has a line for: suite, subset and metric."""
    found = list(dict.fromkeys((row["suite"], row["subset"], row["metric"]) for row in rows))
    plain = [each for each in found if each[2] in UNITS and each[0] != "selection"]
    subsets = dict.fromkeys(subset for suite, subset, _ in found if suite == "exam")
    there = set(found)
    exams = [(suite, subset, metric) for subset in subsets for suite in ("exam", EXAM_CLEAN) for metric in EXAM_UNITS]
    return plain + [each for each in exams if each in there]


def partly_compared(rows: Sequence[Mapping[str, Any]], base: str | None = None) -> list[str]:
    """A sentence for each change that is not over all documents whose values stand in its line.

    Which documents are held out depends on the tokenizer, where VALIDATION_TOKENS ends them: a change is over those that
    both checkpoints were measured on.

    Args:
        base: the label that changes are from; None: the first that has none.
    """
    if base is None:
        changed = {row["checkpoint"] for row in rows if row["metric"].endswith(CHANGE)}
        base = next((row["checkpoint"] for row in rows if row["checkpoint"] not in changed), None)
    counts = {(row["checkpoint"], row["suite"], row["subset"], row["metric"]): row.get("n") for row in rows}
    said = []
    for (checkpoint, suite, subset, metric), n in counts.items():
        of_values = [counts.get((each, suite, subset, metric.removesuffix(CHANGE))) for each in (checkpoint, base)]
        if metric.endswith(CHANGE) and None not in (n, *of_values) and of_values != [n, n]:
            said.append(
                f"{checkpoint}, {subset}: the change is over {n:,} documents that both hold out; "
                f"the values are over {of_values[0]:,}, and over {of_values[1]:,} of {base}"
            )
    return list(dict.fromkeys(said))
