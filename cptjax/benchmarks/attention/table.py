"""What was found, as Markdown that people read, and as the few numbers that it comes to."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.benchmarks.attention.compare import PASSES, SQUARE_LENGTH, Memory, Work

_REFERENCE_LEAST = 1.5  # seconds of the naive einsum over the reference's
_MIB = 1 << 20


Squares = Mapping[str, bool | str]


def page(work: Sequence[Work], memory: Sequence[Memory], squares: Squares, cpu: Mapping[str, float]) -> list[str]:
    """The tables of what there is, one after the other."""
    lines: list[str] = []
    for table in (_work_table(work), _memory_table(memory)):
        if table:
            lines += [*table, ""]
    if squares:
        said = ", ".join(f"{generation}: {_square(held)}" for generation, held in squares.items())
        lines += [f"Gradients at length {SQUARE_LENGTH}: {said}.", ""]
    if cpu:
        lines.append(
            f"The reference on this CPU, in one run: {cpu['ratio_forward']:.2f} times as fast as the naive einsum forward, "
            f"{cpu['ratio_gradients']:.2f} times with gradients (required: {_REFERENCE_LEAST})."
        )
    return lines


def summary(
    work: Sequence[Work], memory: Sequence[Memory], squares: Squares, cpu: Mapping[str, float]
) -> dict[str, Any]:
    """By case and pass the largest ratio of all generations; then what is not as required, or that all is."""
    found: dict[str, Any] = {}
    for each in work:
        if each.ratio is not None:
            name = f"{each.case}, {PASSES[each.backward]}"
            found[name] = max(found.get(name, 0.0), each.ratio)
    missed = [
        f"{each.generation}, {each.case}, {PASSES[each.backward]}: {_ratio(each)}" for each in work if not _held(each)
    ]
    for each in memory:
        name = f"{each.generation}, length {each.length}, head_dim {each.head_dim}, {PASSES[each.backward]}"
        if not isinstance(each.ours, int):
            missed.append(f"{name}: {each.ours}")
        elif isinstance(each.splash, int) and each.ours > each.splash:
            missed.append(f"{name}: {_mib(each.ours)} MiB of splash's {_mib(each.splash)}")
    missed += [f"{generation}, length {SQUARE_LENGTH}: {_square(held)}" for generation, held in squares.items() if held]
    ratios = {name: value for name, value in cpu.items() if name.startswith("ratio")}
    missed += [f"the reference, {name}: {value:.2f}" for name, value in ratios.items() if value < _REFERENCE_LEAST]
    return {**found, "not as required": "; ".join(missed) or "nothing"}


def _work_table(work: Sequence[Work]) -> list[str]:
    if not work:
        return []
    head = ["TPU", "rows", "elements", "blocks", "allowed"]
    for name in PASSES:
        head += [f"{name}: splash", "its blocks", "ours", "our blocks", "ratio"]
    lines = _head(head)
    for forward, backward in zip(work[::2], work[1::2], strict=True):
        shares = [f"{forward.areas.elements:.3f}", f"{forward.areas.blocks:.3f}", f"{forward.allowed:.3f}"]
        cells = [forward.generation, forward.case, *shares]
        for each in (forward, backward):
            blocks = [" x ".join(map(str, sizes)) for sizes in (each.splash_blocks, each.our_blocks)]
            cells += [_thousands(each.splash), blocks[0], _thousands(each.ours), blocks[1], _ratio(each)]
        lines.append(_row(cells))
    return lines


def _memory_table(memory: Sequence[Memory]) -> list[str]:
    if not memory:
        return []
    columns = list(dict.fromkeys((each.length, each.backward) for each in memory))
    rows: dict[tuple[str, int], dict] = {}
    for each in memory:
        of = rows.setdefault((each.generation, each.head_dim), {})
        of[each.length, each.backward] = f"{_mib(each.ours)} / {_mib(each.splash)}"
    lines = _head(
        ["TPU", "head_dim", *(f"{length}, {('forward', 'gradients')[backward]}" for length, backward in columns)]
    )
    return lines + [_row([*map(str, key), *(of.get(column, "") for column in columns)]) for key, of in rows.items()]


def _held(work: Work) -> bool:
    """Whether ours is as little as required; where splash has no block sizes that compile, whether ours compiles."""
    return work.ours is not None and (work.ratio is None or work.ratio <= work.allowed)


def _ratio(work: Work) -> str:
    if work.ratio is None:
        return work.why or "splash does not compile"
    return f"{work.ratio:.3f}" if _held(work) else f"**{work.ratio:.3f}**"


def _square(held: bool | str) -> str:
    if isinstance(held, str):
        return held
    return f"{'an' if held else 'no'} array of {SQUARE_LENGTH} x {SQUARE_LENGTH}"


def _thousands(cycles: int | None) -> str:
    return "refused" if cycles is None else f"{cycles / 1e3:,.0f}"


def _mib(temporary: int | str) -> str:
    return f"{temporary / _MIB:.1f}" if isinstance(temporary, int) else "refused"


def _head(cells: Sequence[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
