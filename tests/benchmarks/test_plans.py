"""The table of plans: its columns are those of docs/benchmarks.md, and what does not fit says so."""

from pathlib import Path

import pytest

from cptjax.benchmarks.plans import summary, table
from cptjax.planning.chips import GIB

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def plan(total: float, seconds: dict[str, float] | None) -> dict:
    return {
        "chips": 16,
        "mesh": {"replica": 1, "fsdp": 16, "context": 1, "tensor": 1},
        "hbm_bytes": {"total": total * GIB, "capacity": 16 * GIB},
        "sent_bytes": {"all": 8e9, "in_layers": 4e9, "exposed": 2e9, "exposed_in_layers": 1e9},
        "step_seconds": seconds,
        "kernels": {"attention_forward": 2},
        "warnings": ["mind this"],
        "compile_seconds": 90.4,
    }


@pytest.mark.parametrize(
    "total, seconds, memory, time",
    [
        (8, {"low": 1.0, "high": 2.5}, "8.00 (50%)", "1 to 2.5"),
        (17, None, "17.00 (106%: does not fit)", "no estimate"),
    ],
)
def test_a_line_has_what_the_plan_says(total, seconds, memory, time):
    line = table({"a recipe": summary(plan(total, seconds))})[-1]
    cells = line.strip("| ").split(" | ")
    assert cells == ["a recipe", "16", "fsdp 16", memory, "8 GB", "4 GB", "1 GB, 2 GB", time, "1", "90 s"]


def test_the_documented_table_has_the_columns_that_are_printed():
    assert "\n".join(table({})) in DOCS.read_text(encoding="utf-8")
