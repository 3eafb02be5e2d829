"""The steps of a study's grid: learning rates where they are tried, then the runs, level by level, then the conclusion."""

import json
from collections.abc import Mapping
from typing import Any

from cptjax.studies.arms import Arm
from cptjax.studies.grid import Grid, Point, non_embedding
from cptjax.studies.step import Step

CONCLUSION = "conclusion"
_DATA_SEED = 1000  # the data order's seeds and the weights' are drawn apart (PROTOCOL.md 5)


def grid_steps(grid: Grid) -> list[Step]:
    """Steps in an order in which each finds what it uses: by depth, rates before runs; `conclusion` last."""
    points = grid.points()
    steps = []
    for depth in sorted({grid.depth(arm) for arm in grid.arms}):
        arms = [arm for arm in grid.arms if grid.depth(arm) == depth]
        steps += [_rates(grid, arm, size, points) for arm in arms if arm.searches for size in grid.rates_sizes(arm)]
        mine = [point for point in points if grid.depth(point.arm) == depth]
        for name in dict.fromkeys(point.step for point in mine):
            steps.append(_runs(grid, [point for point in mine if point.step == name], points))
    return [*steps, _conclusion(grid, points)]


def rates_step(arm: Arm, size: str | float) -> str:
    """The name of the step that tries learning rates."""
    return f"rates_{arm.name}_{size}"


def bracket_point(grid: Grid, arm: Arm, size: str | float) -> Point:
    """The run on which learning rates are tried: seed 0, the arm's budget `rates_budget`."""
    budgets = sorted(grid.budgets(arm), key=lambda pair: pair[1])
    prior, tokens = budgets[min(grid.rates_budget, len(budgets) - 1)]
    tokens = tokens if grid.rates_tokens is None else int(grid.rates_tokens)
    return Point(arm, str(size), 0, tokens, grid.total(arm, tokens), prior, rates_step(arm, size))


def _common(grid: Grid, size: str, arm: Arm) -> dict[str, Any]:
    """What all runs of a step have: those of the arm's schedule and final rate at the size."""
    return {
        "MODEL": "ladder",
        "LADDER_SIZE": _ladder(grid, size),
        "TOKENIZER": grid.tokenizer,
        "SOURCES": dict(grid.sources),
        "ROWS_DIR": grid.rows_dir,
        "BATCH_TOKENS": grid.batch_tokens,
        "SEQUENCE_LENGTH": grid.sequence_length,
        "PEAK_LEARNING_RATE": 1.0,  # each run has its own; the schedule's file asks for one
        **({"FINAL_LEARNING_RATE": arm.final_rate or grid.final_rate} if arm.schedule == "rewarm" else {}),
        **grid.settings,
    }


def _ladder(grid: Grid, size: str) -> str | float:
    """The size as the grid has it: names are text, and labels of the ladder numbers."""
    return next(each for each in (*grid.sizes, *grid.rates_at) if str(each) == size)


def _rates(grid: Grid, arm: Arm, size: str | float, points: list[Point]) -> Step:
    point = bracket_point(grid, arm, size)
    member = _member(grid, point, points)
    del member["learning_rate"]
    settings = {
        "RUNS": [member],
        "TARGET": arm.target,
        "LEARNING_RATES": [float(rate) for rate in arm.learning_rates],
        "WIDEN": grid.widen,
        "ALLOW_EDGE": grid.allow_edge,
    }
    files = ("gin/jobs/find_rates.gin", f"gin/recipes/schedules/{arm.schedule}.gin")
    return Step(point.step, files, [_common(grid, point.size, arm), settings])


def _runs(grid: Grid, mine: list[Point], points: list[Point]) -> Step:
    files = ("gin/jobs/train_group.gin", f"gin/recipes/schedules/{mine[0].arm.schedule}.gin")
    settings = {"RUNS": [_member(grid, point, points) for point in mine]}
    return Step(mine[0].step, files, [_common(grid, mine[0].size, mine[0].arm), settings])


def _member(grid: Grid, point: Point, points: list[Point]) -> dict[str, Any]:
    """The run as `training.members.Member` takes it, without what it leaves at its default."""
    arm = point.arm
    member: dict[str, Any] = {
        "name": point.name,
        "blend": dict(arm.blend),
        "tokens": point.total,
        "seed": _DATA_SEED + point.seed,
        "weights_seed": point.seed,
        **_learning_rate(grid, point),
    }
    if arm.then is not None:
        member |= {"then": dict(arm.then), "switch": arm.switch}
    if arm.plateau:
        member["save_at"] = [grid.total(arm, tokens) for _, tokens in grid.budgets(arm)]
    if point.prior is not None:
        before = grid.arm(arm.start)
        trunk = next(
            each
            for each in points
            if (each.arm.name, each.size, each.seed) == (before.name, point.size, point.seed)
            and (before.plateau or each.tokens == point.prior)
        )
        member |= {
            "verb": "branch" if arm.moments else "initialize",
            "checkpoint": f"{{{trunk.step}}}/{trunk.name}",
            **({"checkpoint_tokens": grid.total(before, point.prior)} if before.plateau else {}),
        }
    return member


def _tables(arm: Arm) -> dict[str, str]:
    """The tables that the arm's points are written to, by the source whose loss they have there."""
    return dict(arm.table) if isinstance(arm.table, Mapping) else {arm.target: arm.table or arm.name}


def _learning_rate(grid: Grid, point: Point) -> dict[str, Any]:
    arm = grid.rates_from(point.arm)
    if arm is None:
        return {"learning_rate": "inherit"}
    size = grid.nearest_rates(arm, _ladder(grid, point.size))
    here, there = (non_embedding(grid.model(each)) for each in (_ladder(grid, point.size), size))
    factor = (here / there) ** -grid.rate_exponent
    found = {"learning_rate": f"{{{rates_step(arm, size)}}}"}
    return found if factor == 1 else {**found, "rate_factor": factor}


def _conclusion(grid: Grid, points: list[Point]) -> Step:
    described = [
        {
            "folder": f"{{{point.step}}}/{point.name}",
            "arm": point.arm.name,
            "size": point.size,
            "seed": point.seed,
            "tokens": point.tokens,
            "prior": point.prior,
            "target": point.arm.target,
            "replay": round(point.arm.replay, 9),
            "target_share": point.arm.blend.get(point.arm.target, 0.0) if point.arm.then is None else None,
            "as_prior": point.arm.as_prior,
            "tables": {} if point.arm.plateau else _tables(point.arm),
        }
        for point in points
    ]
    rates = {
        f"{arm.name} at {size}": f"{{{rates_step(arm, size)}}}"
        for arm in grid.arms
        if arm.searches
        for size in grid.rates_sizes(arm)
    }
    settings = {
        "POINTS": described,
        "RATES": rates,
        "CONTRAST": json.loads(json.dumps(vars(grid.contrast))),
        "RULES": grid.rules(),
        "SMOKE": grid.smoke,
    }
    return Step(CONCLUSION, "gin/jobs/conclude.gin", settings)
