"""A plan for people: what each source holds, what each stage reads of it, and how often it is read in all."""

from cptjax.counts import count
from cptjax.data.plan import DataPlan, PlannedStage


def table(plan: DataPlan) -> list[str]:
    """The plan for people: what each source holds, what each stage reads of it, and how often it is read in all."""
    lines = [f"{'source':24} {'documents':>10} {'bytes':>8} {'tokens':>8} {'rows':>8} {'filled':>8}"]
    for name, info in plan.sources.items():
        lines.append(
            f"{name:24} {info.documents:>10,} {count(info.bytes):>8} {count(info.tokens):>8} {info.rows:>8,} {info.fill:>8.2%}"
        )
    lines.append(f"{'stage':16} {'source':24} {'steps':>8} {'share':>7} {'tokens':>8} {'bytes':>8} {'epochs':>7}")
    begin = 0
    for stage in plan.stages:
        read, end = plan.exposures(begin), begin + stage.steps
        after = plan.exposures(end)
        for name in stage.parts:
            rows, info = after[name] - read[name], plan.sources[name]
            lines.append(
                f"{stage.name:16} {name:24} {stage.steps:>8,} {_share(stage, name):>7} "
                f"{count(rows * info.tokens / info.rows):>8} {count(rows * info.bytes / info.rows):>8} "
                f"{rows / info.rows:>7.2f}"
            )
        begin = end
    total = plan.exposures(plan.steps)
    for name, epochs in plan.epochs(plan.steps).items():
        info = plan.sources[name]
        carried, used = plan.epochs_before.get(name, 0), total[name] / info.rows
        lines.append(
            f"{name}: {epochs:.2f} epochs"
            + (f", {carried:.2f} of them before this run" if carried else "")
            + f"; reads {count(used * info.tokens)} of {count(info.tokens)} tokens, {count(used * info.bytes)} of "
            f"{count(info.bytes)} bytes"
        )
    return lines


def _share(stage: PlannedStage, name: str) -> str:
    """A source's share as people say it; of a ramp, in rows, from where to where."""
    if stage.ramp_from is None:
        return f"{stage.weights[name] / sum(stage.weights.values()):.2%}"
    whole = sum(stage.parts.values())
    return f"{stage.ramp_from[name] / whole:.0%}-{stage.parts[name] / whole:.0%}"
