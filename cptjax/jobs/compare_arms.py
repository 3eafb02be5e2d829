"""Two arms of a finished study at equal loss: the ratio of their costs, how it goes with the size, and what either forgot."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.configuration import resolved_config
from cptjax.errors import ConfigurationError
from cptjax.reporting.folder import RunFolder
from cptjax.reporting.metrics import read_metrics
from cptjax.scaling.ratio import RatioLine, fit_ratio
from cptjax.studies.concluded import is_smoke, table_of
from cptjax.studies.equal_loss import CostRatios, SizeForgotten, cost_ratios, forgetting
from cptjax.studies.equal_loss_page import READINGS, SIZES, equal_loss_page

COMPARISON = "comparison.json"
ROUNDING = 1e-9  # an exponent's interval that is narrower tells nothing but how ratios were rounded


def compare_arms(
    study: str,
    specialised: str,
    general: str,
    forgotten: str,
    domain_share: float,
    output_dir: str,
    dry_run: bool = False,
) -> None:
    """Writes `<output_dir>/comparison.json` and comparison.md. It reads the study's table; no run is measured again.

    Args:
        study: the folder of a study with a grid that has concluded.
        specialised, general: the arms, which continue the same trunks and have the same target.
        forgotten: the source whose loss tells what they forgot.
        domain_share: p, of the text that `general` reads; 1/p is the null of the ratio.

    Raises:
        ConfigurationError: the study has not concluded; as `studies.equal_loss`.
    """
    table = table_of(study)
    settings = _identity(table.read_bytes(), specialised, general, forgotten, domain_share)
    folder = RunFolder(output_dir)
    if folder.holds(COMPARISON, settings):
        print(f"{folder.path} is finished; nothing to do.")
        return
    result = {**_compared(read_metrics(table), settings), "smoke": is_smoke(study), "settings": settings}
    if dry_run:
        print(f"{specialised} and {general} would be compared at {len(result['ratios'])} sizes into {folder.path}")
        return
    print(_written(folder, result))
    print(f"wrote {folder.path / COMPARISON} and comparison.md")


def _identity(table: bytes, specialised: str, general: str, forgotten: str, share: float) -> dict[str, Any]:
    """What makes this comparison another one than another."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigurationError(f"DOMAIN_SHARE = {share!r}; it is a share of the general text, above 0 and at most 1.")
    return {
        "runs_sha256": hashlib.sha256(table).hexdigest(),
        "specialised": specialised,
        "general": general,
        "forgotten": forgotten,
        "domain_share": share,
    }


def _compared(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows tell, as comparison.json has it."""
    arms, share = (settings["specialised"], settings["general"]), settings["domain_share"]
    ratios = cost_ratios(rows, *arms, share)
    forgot = forgetting(rows, *arms, settings["forgotten"])
    fits = {reading: {unit: _fit(ratios, reading, unit) for unit in SIZES} for reading in READINGS}
    return {
        "null": 1 / share,
        "ratios": [dataclasses.asdict(each) for each in ratios],
        "fits": fits,
        "forgetting": [dataclasses.asdict(each) for each in forgot],
        "notes": [*_left_out(ratios, 1 / share), *_doubts(fits), *_apart(forgot)],
    }


def _written(folder: RunFolder, result: Mapping[str, Any]) -> str:
    """Writes both files and ends the run; the page."""
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})
    page = equal_loss_page(result)
    folder.write("comparison.md", page)
    folder.write(COMPARISON, json.dumps(result, indent=1, allow_nan=False) + "\n")
    folder.finish({"job": "compare_arms", "sizes": len(result["ratios"])})
    if lock is not None:
        lock.close()
    return page


def _fit(ratios: Sequence[CostRatios], reading: str, unit: str) -> dict[str, Any]:
    """The line through the sizes of which every seed has the ratio, or why there is none."""
    known = {
        getattr(each, unit): list(getattr(each, reading).values())
        for each in ratios
        if reading == "at_best" or not each.bounds
    }
    try:
        line = fit_ratio(known)
    except ConfigurationError as error:
        return {"refused": str(error)}
    return {**dataclasses.asdict(line), "word": _word(line)}


def _word(line: RatioLine) -> str | None:
    """What the interval says of the ratio; None where it has no width, for then its side of 0 is a matter of rounding."""
    if line.high - line.low < ROUNDING:
        return None
    return "it grows" if line.low > 0 else "it falls" if line.high < 0 else "that it grows or falls is not shown"


def _left_out(ratios: Sequence[CostRatios], null: float) -> list[str]:
    """Which sizes no line is drawn through, and whether their bounds alone are above the null."""
    said = []
    for each in ratios:
        if not each.bounds:
            continue
        seeds = "all seeds" if len(each.bounds) == len(each.at_best) else f"seeds {', '.join(map(str, each.bounds))}"
        lowest = [value for word, value in each.bounds.values() if word == "at least"] + [
            *each.to_general_best.values()
        ]
        above = len(lowest) == len(each.at_best) and min(lowest) > null
        said.append(
            f"{each.size}: no fit uses its ratio to the general arm's lowest loss, of which the specialised arm's budgets give a"
            f" bound alone in {seeds}" + ("; above 1/p in every seed, though with no interval" if above else "")
        )
    return said


def _doubts(fits: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Where the exponent depends on what is called the size, or has an interval of no width."""
    said = []
    for reading, each in fits.items():
        (name, one), (other_name, other) = ((SIZES[unit], each[unit]) for unit in SIZES)
        if "refused" in one:
            continue
        if one["word"] is None:
            said.append(
                f"{READINGS[reading]}: all sizes lie on one line, as equal quotients of budgets do; that is no certainty"
            )
        elif not one["low"] <= other["exponent"] <= one["high"]:
            said.append(
                f"{READINGS[reading]}: the exponent is {one['exponent']:.3f} in {name} and {other['exponent']:.3f} in {other_name},"
                " outside of the former's interval"
            )
    return said


def _apart(forgot: Sequence[SizeForgotten]) -> list[str]:
    return [
        f"{each.size}: no loss on the target is on all curves, so that forgetting is not matched; they have "
        + ", ".join(f"{low:.3f} to {high:.3f} ({arm})" for arm, (low, high) in each.ranges.items())
        for each in forgot
        if not each.levels
    ]
