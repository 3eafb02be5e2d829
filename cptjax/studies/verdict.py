"""What a study says of its primary contrast, and what saying it would cost (PROTOCOL.md 14 and 15)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from cptjax.errors import CptjaxError
from cptjax.studies.arms import Contrast
from cptjax.studies.intervals import Difference, difference
from cptjax.studies.power import seeds_needed, simulated_null, smallest_effect
from cptjax.studies.table import Run, measured

SUPPORTED, REFUTED, UNDERPOWERED, NONE = "supported", "refuted", "underpowered", "no verdict"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict, the reason in a sentence, and the numbers behind it.

    Attributes:
        smallest: the smallest effect that these seeds would have found with a chance of 80%; None where nothing tells.
        seeds: runs of the smaller arm; needed: seeds of each arm for the declared effect, None: no number of them does, or
            nothing tells.
    """

    word: str
    why: str
    contrast: Contrast
    difference: Difference
    smallest: float | None
    seeds: int
    needed: int | None

    def as_json(self) -> dict[str, Any]:
        """Plain data; what is infinite becomes null."""
        found = {name: _finite(value) for name, value in vars(self.difference).items()}
        return {
            "verdict": self.word,
            "why": self.why,
            "contrast": vars(self.contrast),
            "difference": found,
            "smallest_effect": None if self.smallest is None else _finite(self.smallest),
            "seeds": self.seeds,
            "seeds_needed": self.needed,
        }


def judge(runs: Sequence[Run], contrast: Contrast, smoke: bool) -> Verdict:
    """The verdict on the primary contrast.

    Supported: the 95% interval of `better` minus `worse` is below zero. Refuted: it is above zero, or leaves out an advantage
    as large as the declared effect. Underpowered: neither. None: a smoke run, a single seed, or points that are not annealed.

    Raises:
        CptjaxError: one of the two points has no run, or they were measured on different documents.
    """
    better, worse = (_at(runs, name, contrast) for name in (contrast.better, contrast.worse))
    target = better[0].row["target"]
    arms = [measured(arm, target, contrast.metric) for arm in (better, worse)]  # which looks within each
    if better[0].documents[target]["names"] != worse[0].documents[target]["names"]:
        raise CptjaxError(
            f"{contrast.better!r} and {contrast.worse!r} were measured on different documents of {target!r}; they cannot be"
            " compared."
        )
    found = difference(*arms)
    smallest = needed = None
    if found.deviation is not None:
        told = found.deviation, found.documents, found.paired
        smallest, needed = smallest_effect(found.clusters, *told), seeds_needed(contrast.effect, *told)
    word, why = _word(found, contrast, smoke, all(run.row["annealed"] for run in [*better, *worse]), smallest)
    return Verdict(word, why, contrast, found, smallest, found.clusters, needed)


def null_of(found: Difference, studies: int = 1000) -> dict[str, int] | None:
    """How many of so many simulated A/A studies reject, with the seeds, documents and deviations of this one; None of one seed.

    Where this one compares runs in pairs, within trunks that both arms continue, so do they; how far trunks are apart is then
    no part of the difference, and one deviation of runs is taken for it.
    """
    if found.deviation is None or found.clusters < 2:
        return None
    mixed = math.sqrt(
        found.documents * found.held_out * found.clusters / 2
    )  # what left this variance between documents
    one = found.deviation / math.sqrt(2)
    trunks = one if found.paired else None
    rejected = simulated_null(studies, found.clusters, max(found.held_out, 2), one, 0.3, mixed, trunk_deviation=trunks)
    return {"studies": studies, "rejected": rejected}


def _word(
    found: Difference, contrast: Contrast, smoke: bool, annealed: bool, smallest: float | None
) -> tuple[str, str]:
    unit = "bits per byte" if contrast.metric == "bits_per_byte" else "nats per token"
    if smoke:
        return NONE, "this is a smoke run: it shows that the parts work together, at sizes that show nothing else"
    if not annealed:
        return NONE, "the points compared are not annealed"
    if found.deviation is None or found.clusters < 2:
        return NONE, "with one seed of each arm nothing tells what another would have given"
    if found.held_out < 2:
        return NONE, "one held-out document does not tell how others would have differed"
    between = f"[{found.low:+.4f}, {found.high:+.4f}] {unit}"
    if found.high < 0:
        return SUPPORTED, f"the 95% interval {between} is below zero"
    if found.low > 0:
        return REFUTED, f"the 95% interval {between} is above zero"
    if found.low > -contrast.effect:
        return REFUTED, f"the 95% interval {between} leaves out an advantage of {contrast.effect:g}"
    return (
        UNDERPOWERED,
        f"the 95% interval {between} holds zero; the smallest effect it could have seen is {smallest:.4f}",
    )


def _at(runs: Sequence[Run], arm: str, contrast: Contrast) -> list[Run]:
    there = [
        run
        for run in runs
        if (run.row["arm"], run.row["size"]) == (arm, str(contrast.size))
        and contrast.picks(arm, run.row["budget_prior"], run.row["budget"])
    ]
    if not there:
        raise CptjaxError(f"no run of {arm!r} at size {contrast.size!r}, of the contrast, is there.")
    return sorted(there, key=lambda run: run.row["seed"])


def cost_of_seeds(runs: Sequence[Run], contrast: Contrast, seeds: int) -> tuple[float, float | None]:
    """FLOPs and seconds of so many seeds of the contrast's two points, with the trunks that they continue.

    Of what one seed took here, at the speed measured here. Sharing a trunk between arms is counted once a seed.
    """
    known = {"/".join(run.row["run"].split("/")[-2:]): run for run in runs}
    needed: dict[str, Run] = {}
    for arm in (contrast.better, contrast.worse):
        run = _at(runs, arm, contrast)[0]
        while run is not None:
            needed[run.row["run"]] = run
            run = known.get(run.row["trunk"])
    flops = sum(run.row["flops_own"] for run in needed.values())
    times = [run.seconds for run in needed.values()]
    return seeds * flops, None if any(time is None for time in times) else seeds * sum(times)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
