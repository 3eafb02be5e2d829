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
        " is saved at its loss, read off curves of annealed runs; of an arm that never gets there, below 0, the share of"
        f" `{baseline}`'s FLOPs that it takes more at its own lowest loss. Intervals are 95%, Student's, over seeds: the held-out"
        " documents are the same for all. Beyond the budgets that were run there are bounds alone.",
        "",
        as_markdown([_charges(result["charges"])], level=2),
        *[f"- {each}" for each in result["notes"]],
        "",
    ]
    for text in dict.fromkeys(each["text"] for each in result["gains"]):
        mine = [each for each in result["gains"] if each["text"] == text]
        lines += [as_markdown([_gains(text, mine, baseline, result["charges"])], level=2)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _charges(charges: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for arm, each in charges.items():
        parts = _parts(each)
        users = [plural(each["runs"], "run")] if each["selections"] else []
        users += [f"its embedder {each['embedder_runs']}"] if each["embedder"] else []
        told = [flops(part) if part else NONE for part in (*parts, sum(parts))]
        share = flops(each["share"]) if each["share"] else NONE
        rows.append([arm, ", ".join(each["selections"]) or NONE, *told, ", ".join(users) or NONE, share])
    head = [
        "arm",
        "selection",
        "embedding",
        "comparing",
        "the embedder's training",
        "in all",
        "serves",
        "a run's equal part",
    ]
    return as_table("FLOPs of the selections", head, rows, (2, 3, 4, 5, 7))


def _gains(
    text: str, gains: Sequence[Mapping[str, Any]], baseline: str, charges: Mapping[str, Mapping[str, Any]]
) -> Table:
    rows = []
    for each in gains:
        told = [_gain(each[name]) for name in ("marginal", "charged", "shared")]
        dearer = sum(_parts(charges[each["arm"]])) > sum(_parts(charges[baseline]))
        pays = _break_even(each["break_even"]) if dearer else NONE  # what costs nothing has nothing to save again
        rows.append([each["arm"], each["size"], flops(each["flops"]), *told, pays])
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


def _parts(charge: Mapping[str, Any]) -> list[float]:
    return [charge[name] for name in ("embedding", "comparing", "embedder")]


def _gain(gain: Mapping[str, Any]) -> str:
    if gain["mean"] is not None:
        return f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    told = [f"{value:+.3f}" for value in gain["by_seed"].values()]
    return _of_seeds([*told, *(f"{word} {value:+.3f}" for word, value in gain["bounds"].values())])


def _break_even(by_seed: Mapping[Any, Mapping[str, Any]]) -> str:
    told = []
    for each in by_seed.values():
        known = "not within the budgets" if each["cost"] is None else flops(each["cost"])
        told.append(f"at most {known}" if each["bound"] else known)
    return _of_seeds(told)


def _of_seeds(told: Sequence[str]) -> str:
    return told[0] if len(set(told)) == 1 else ", ".join(told)
