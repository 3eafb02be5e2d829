"""A plan as a page: report.html."""

from cptjax.counts import in_bytes
from cptjax.planning.chips import GIB
from cptjax.planning.described import Plan, describe, estimate_lines
from cptjax.reporting.inspection_page import Part
from cptjax.reporting.rendering import render
from cptjax.reporting.tables import as_table


def plan_page(plan: Plan, path: str) -> str:
    """The page as HTML; `path` is where it goes."""
    title = f"A plan for {plan.topology or 'the devices here'}"
    footer = "Written by cptjax from the compiled step. No time on this page is measured."
    return render(
        "inspection.html.j2", title=title, path=path, warnings=plan.warnings, parts=_parts(plan), footer=footer
    )


def _parts(plan: Plan) -> list[Part]:
    total = sum(plan.memory.values())
    share = (lambda size: f"{size / plan.capacity:.1%}") if plan.capacity else (lambda size: "")
    memory = [[name, f"{size / GIB:.3f}", share(size)] for name, size in plan.memory.items()]
    memory.append(["in all", f"{total / GIB:.3f}", share(total)])
    collectives = [
        [
            each.kind,
            each.where,
            f"{each.group:,}",
            each.how,
            f"{each.number:,}",
            f"{each.times:,}",
            in_bytes(each.bytes),
            in_bytes(each.sent),
            each.shape,
        ]
        for each in plan.groups
    ]
    head = ["collective", "loop trips", "among", "how", "number", "runs", "bytes", "sent", "largest"]
    said = describe(plan)
    lines = [
        [line[:9].strip(), line[9:].strip()] for line in said[:2] + (estimate_lines(plan) if plan.estimate else [])
    ]
    return [
        Part("The plan", (), (as_table("The plan", ["", ""], lines, ()),)),
        Part(
            "Memory of a device",
            (
                "Parameters, optimizer and batch from their shardings; activations from shapes; the rest as the compiler "
                "allocates it.",
            ),
            (as_table("Memory", ["kind", "GiB", "of what there is"], memory, (1, 2)),),
        ),
        Part(
            "Collectives of a step",
            (
                "Bytes of one device. Overlapped: begun and waited for in two places, with other work scheduled in between.",
            ),
            (as_table("Collectives", head, collectives, (2, 4, 5, 6, 7)),),
        ),
    ]
