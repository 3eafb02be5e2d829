"""What a study's selections save, with and without what they cost, as a page of tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.reporting.table_text import as_markdown
from cptjax.reporting.tables import Table, as_table
from cptjax.reporting.wording import NONE, flops, plural


def selection_gain_page(result: Mapping[str, Any]) -> str:
    """The page. `result` is the content of gains.json."""
    baseline = result["settings"]["baseline"]
    kind = "A smoke run: no verdict. " if result["smoke"] else ""
    lines = [
        f"# What selections save over `{baseline}`",
        "",
        f"{kind}Exploratory: the study's contrast is another. A gain is the share of the FLOPs of `{baseline}`'s largest run that"
        " is saved at its loss, read off curves of annealed runs; below 0 it costs more. Intervals are 95%, Student's, over seeds:"
        " the held-out documents are the same for all. Beyond the budgets that were run there are bounds alone.",
        "",
        as_markdown([_charges(result["charges"])], level=2),
        *[f"- {each}" for each in result["notes"]],
        "",
    ]
    for text in dict.fromkeys(each["text"] for each in result["gains"]):
        mine = [each for each in result["gains"] if each["text"] == text]
        lines += [as_markdown([_gains(text, mine, baseline)], level=2)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _charges(charges: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for arm, each in charges.items():
        parts = [flops(each[name]) for name in ("embedding", "comparing", "embedder")]
        total = sum(each[name] for name in ("embedding", "comparing", "embedder"))
        shared = plural(each["runs"], "run") if each["selections"] else NONE
        rows.append([arm, ", ".join(each["selections"]) or NONE, *parts, flops(total), shared, flops(each["share"])])
    head = [
        "arm",
        "selection",
        "embedding",
        "comparing",
        "the embedder's training",
        "in all",
        "read by",
        "a run's equal part",
    ]
    return as_table("FLOPs of the selections", head, rows, (2, 3, 4, 5, 7))


def _gains(text: str, gains: Sequence[Mapping[str, Any]], baseline: str) -> Table:
    rows = []
    for each in gains:
        told = [_gain(each[name]) for name in ("marginal", "charged", "shared")]
        rows.append([each["arm"], each["size"], flops(each["flops"]), *told, _break_even(each["break_even"])])
    head = [
        "arm",
        "size",
        f"FLOPs of {baseline}",
        "gain, selection not charged",
        "charged in whole",
        "charged its equal part",
        f"charged in whole it pays from FLOPs of {baseline}",
    ]
    return as_table(f"On {text}", head, rows, (2,))


def _gain(gain: Mapping[str, Any]) -> str:
    if gain["mean"] is not None:
        return f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    told = [f"{value:+.3f}" for value in gain["by_seed"].values()]
    return ", ".join([*told, *(f"{word} {value:+.3f}" for word, value in gain["bounds"].values())])


def _break_even(by_seed: Mapping[Any, Mapping[str, Any]]) -> str:
    told = []
    for each in by_seed.values():
        if each["cost"] is None:
            told.append("not within the budgets")
        else:
            told.append(("at most " if each["bound"] else "") + flops(each["cost"]))
    return told[0] if len(set(told)) == 1 else ", ".join(told)
