"""A run in plain sentences and big numbers."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from cptjax.checkpoints.lineage import RunRecord
from cptjax.counts import count
from cptjax.reporting.goodput import STEPS
from cptjax.reporting.progress import duration
from cptjax.reporting.run_content import Domain, RunContent
from cptjax.reporting.start_up import describe_start_up
from cptjax.reporting.wording import NONE, change, flops, listed, number, percent, plural, rate, signed

_VERBS = {
    "random": "It started from random weights",
    "initialize": "It started from the weights of {}, with a fresh optimizer (initialize)",
    "branch": "It branched off {}, with its weights and optimizer moments and a new schedule (branch)",
}


@dataclasses.dataclass(frozen=True)
class Card:
    """One domain's loss, before and after, as the page's big numbers."""

    name: str
    role: str
    headline: str
    unit: str
    change: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Fact:
    """One number of the run: its name, itself, and what belongs to it in small."""

    name: str
    value: str
    detail: str = ""


def status(run: RunContent) -> str:
    """What a reader must know of a run that is not done; empty for one that is."""
    if run.finished is not None:
        return ""
    of = f" of {run.planned_steps:,}" if run.planned_steps else ""
    saved = "no checkpoint is saved" if run.saved is None else f"the newest checkpoint is of step {run.saved:,}"
    return (
        f"This run is not finished: {run.last_step:,}{of} steps are logged, {saved}. It is still going on, or was stopped "
        "or killed; the same command goes on with it. The numbers below are those so far."
    )


def sentences(run: RunContent) -> list[str]:
    """What the run was, for somebody who reads nothing else."""
    said = []
    if run.lineage:
        counts = run.lineage.origin.parameters
        said.append(f"A model of {counts.total:,} parameters ({counts.non_embedding:,} without embeddings).")
    if run.record:
        said += _of_record(run, run.record)
    elif run.lineage:
        said.append("It holds weights as they came: no run of ours has trained them.")
    for role, words in (("trained", "Trained on"), ("evaluated only", "Evaluated only, never trained on in this run")):
        if names := [domain.name for domain in run.domains if domain.role == role]:
            said.append(f"{words}: {listed(names)}.")
    if run.skipped:
        said.append(
            f"{plural(len(run.skipped), 'step')} stood out, or had no finite loss or gradient, and changed nothing "
            "(skipped; listed below)."
        )
    if run.passed_over:
        were = "was" if len(run.passed_over) == 1 else "were"
        said.append(f"{plural(len(run.passed_over), 'step')} {were} passed over on request, unread (SKIP_STEPS).")
    return said


def _of_record(run: RunContent, record: RunRecord) -> list[str]:
    rates = record.learning_rate
    tokens, text, counted = (
        sum(getattr(stage, name) for stage in record.stages) for name in ("tokens", "bytes", "flops")
    )
    share = f" ({percent(rates.final / rates.peak)} of its peak)" if rates.peak > 0 else ""
    comparable = (
        "annealed, so its loss may be compared with that of other annealed runs"
        if record.annealed
        else "not annealed, so its loss is not comparable with that of annealed runs"
    )
    return [
        _VERBS[record.verb].format(record.started_from) + ".",
        f"Up to step {run.saved:,} it read {count(tokens)} tokens, {count(text)} bytes of text, for {flops(counted)} FLOPs "
        "(counted matrix products, attention and output layer included).",
        f"The learning rate reached {rate(rates.peak)} and stands at {rate(rates.final)}{share}: {comparable}.",
    ]


def cards(run: RunContent) -> list[Card]:
    """Each domain's held-out loss from the first evaluation to the last."""
    return [_card(domain) for domain in run.domains]


def _card(domain: Domain) -> Card:
    role = {"trained": "trained on", "evaluated only": "evaluated only"}.get(domain.role, "")
    first = domain.steps[0]
    if len(domain.steps) == 1:
        detail = f"{number(domain.bits[0])} bits/byte; measured once, at step {first:,}: no change to tell."
        return Card(domain.name, role, number(domain.loss[0]), "nats/token", "", detail)
    bits = domain.bits[-1] - domain.bits[0]
    detail = f"{number(domain.bits[0])} → {number(domain.bits[-1])} bits/byte ({signed(bits)})"
    if first:
        detail += f"; measured first at step {first:,}"
    headline = f"{number(domain.loss[0])} → {number(domain.loss[-1])}"
    return Card(domain.name, role, headline, "nats/token", change(domain.loss[0], domain.loss[-1]), detail)


def _machine_facts(run: RunContent) -> list[Fact]:
    """What the devices were used for, where the run could tell."""
    found = []
    if used := [value for value in run.values("mfu") if math.isfinite(value)]:
        found.append(Fact("MFU", percent(statistics.median(used)), "median step, by counted FLOPs"))
    if peaks := [value for value in run.values("memory_peak_bytes") if math.isfinite(value)]:
        found.append(Fact("Memory", f"{max(peaks) / 2**30:.3g} GiB", "the first device's peak"))
    if run.goodput:
        other = {kind: value for kind, value in run.goodput.items() if kind not in (STEPS, "goodput") and value >= 1}
        parts = [f"{kind} {duration(value)}" for kind, value in sorted(other.items(), key=lambda item: -item[1])]
        detail = "of all wall time went into steps" + ("; " + ", ".join(parts) if parts else "")
        found.append(Fact("Goodput", percent(run.goodput["goodput"]), detail))
    if run.start_up:
        total, _, parts = describe_start_up(run.start_up).partition(": ")
        found.append(Fact("Start-up", total, f"to the first step of the last start: {parts}"))
    return found


def facts(run: RunContent) -> list[Fact]:
    """Tokens, FLOPs, time, speed, and how it started and ended."""
    record, found = run.record, []
    if record:
        tokens = sum(stage.tokens for stage in record.stages)
        per_parameter = tokens / run.lineage.origin.parameters.total
        found.append(Fact("Tokens read", count(tokens), f"{per_parameter:.3g} for each parameter"))
        counted = sum(stage.flops for stage in record.stages)
        found.append(Fact("Training FLOPs", flops(counted), f"{flops(run.lineage.flops)} since the base"))
    elif run.training:
        found.append(Fact("Tokens read", count(run.training[-1]["tokens_read"])))
    seconds = training_seconds(run)
    if math.isfinite(seconds):
        found.append(
            Fact(
                "Training time",
                duration(seconds) if seconds >= 1 else "under 1s",
                f"{plural(len(run.training), 'step')}, without evaluations and saves",
            )
        )
    if speeds := _speeds(run):
        found.append(Fact("Speed", f"{count(statistics.median(speeds))} tokens/s", f"median step{_on_devices(run)}"))
    found += _machine_facts(run)
    if record:
        seed = f"seed {record.seed}"
        found.append(Fact("Start", record.verb, seed))
        peak, final = rate(record.learning_rate.peak), rate(record.learning_rate.final)
        found.append(Fact("Learning rate", f"{peak} → {final}", "annealed" if record.annealed else "not annealed"))
    return found


def training_seconds(run: RunContent) -> float:
    """Time spent in the steps that are logged: each step's tokens over its speed; nan where no step tells its speed."""
    speeds = _speeds(run)
    return sum(run.batch_tokens / speed for speed in speeds) if speeds else math.nan


def _speeds(run: RunContent) -> list[float]:
    return [speed for speed in run.values("tokens_per_second") if math.isfinite(speed) and speed > 0]


def _on_devices(run: RunContent) -> str:
    devices = run.starts[-1].get("devices", {}) if run.starts else {}
    return (
        f", on {plural(devices['devices'], 'device')} ({devices.get('kind', NONE)})" if devices.get("devices") else ""
    )


def same_held_out_text(runs: Sequence[RunContent], domain: str) -> bool | None:
    """Whether all runs that measured `domain` did so on the same held-out text; None where a run does not tell."""
    found = [each.identity for run in runs for each in run.domains if each.name == domain]
    return None if None in found else len(set(found)) == 1
