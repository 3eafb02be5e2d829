"""What two arms of a study cost and forgot at equal loss, as a page of tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.reporting.table_text import as_markdown
from cptjax.reporting.tables import Table, as_table

BITS = "bits per byte"
READINGS = {"to_general_best": "to its lowest loss", "at_best": "each at its own lowest"}
SIZES = {
    "params": "parameters",
    "params_non_embedding": "parameters without embeddings",
}  # an exponent under each (PROTOCOL.md 2)


def equal_loss_page(result: Mapping[str, Any]) -> str:
    """The page. `result` is the content of comparison.json."""
    arms = result["settings"]
    specialised, general, old = (arms[name] for name in ("specialised", "general", "forgotten"))
    kind = "A smoke run: no verdict. " if result["smoke"] else ""
    lines = [
        f"# `{specialised}` and `{general}` at equal loss",
        "",
        f"{kind}Exploratory: the study's contrast is another. Runs of one seed continue one trunk; intervals are over"
        " trunks, Student's. Costs are the FLOPs of what was continued, marginal.",
        "",
        as_markdown([_ratios(result["ratios"], general, specialised)], level=2),
        f"The null is 1/p = {result['null']:.3g}, p = {arms['domain_share']:g} the domain's share of what `{general}`"
        " reads: only a ratio above it speaks for specialising. At its own lowest loss either arm costs one of the declared"
        " budgets: that ratio goes in steps, and is of unequal losses.",
        "",
        "## The ratio against the size",
        "",
        *_fits(result["fits"]),
        "",
        *_forgetting(result["forgetting"], specialised, general, old),
        "",
        *[f"- {each}" for each in result["notes"]],
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _ratios(ratios: Sequence[Mapping[str, Any]], general: str, specialised: str) -> Table:
    rows = []
    for each in ratios:
        exact = [f"{value:.3g}" for value in each["to_general_best"].values()]
        bounds = [f"{word} {value:.3g}" for word, value in each["bounds"].values()]
        interval = "-" if each["low"] is None else f"[{each['low']:.3g}, {each['high']:.3g}]"
        best = ", ".join(f"{value:.3g}" for value in each["at_best"].values())
        held = each["against_null"] or "not known of all"
        rows.append([each["size"], f"{each['params']:,}", ", ".join([*exact, *bounds]), interval, held, best])
    head = [
        "size",
        SIZES["params"],
        f"{READINGS['to_general_best']}, by seed",
        "95% interval",
        "against 1/p",
        READINGS["at_best"],
    ]
    return as_table(f"FLOPs of {general} over those of {specialised}", head, rows, (1,))


def _fits(fits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for reading, each in fits.items():
        for unit, fit in each.items():
            if "refused" in fit:
                said = fit["refused"].splitlines()[0]
            else:
                said = (
                    f"ratio ~ N^{fit['exponent']:z.3f}, 95% interval [{fit['low']:z.3f}, {fit['high']:z.3f}], over {fit['sizes']}"
                    f" sizes' means: {fit['word'] or 'of no width, which tells neither growth nor fall'}"
                )
            lines.append(f"- {READINGS[reading]}, N = {SIZES[unit]}: {said}")
    return lines


def _forgetting(sizes: Sequence[Mapping[str, Any]], specialised: str, general: str, old: str) -> list[str]:
    name, rows = f"Forgetting of {old} at equal loss, {BITS}", []
    for size in sizes:
        for level in size["levels"]:
            interval = "-" if level["low"] is None else f"[{level['low']:+.3f}, {level['high']:+.3f}]"
            values = [f"{level[what]:+.3f}" for what in ("specialised", "general", "difference")]
            rows.append([size["size"], f"{level['at']:.3f}", *values, interval, str(level["seeds"])])
    head = ["size", f"at {BITS} of the target", specialised, general, "difference", "95% interval", "seeds"]
    if not rows:
        return [f"## {name}", "", "At no size is there a loss that all curves reach."]
    return as_markdown([as_table(name, head, rows, (1, 2, 3, 4, 6))], level=2).splitlines()
