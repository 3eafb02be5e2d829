"""Attention's TPU kernels on a machine without a TPU: what `gin/benchmarks/attention.gin` runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from cptjax.benchmarks.ahead_of_time import TOPOLOGIES, Compiles, check_libtpu
from cptjax.benchmarks.attention import block_sizes, compare, picture, table
from cptjax.benchmarks.attention.documents import document_lengths, equal_documents, name_of, packed_rows
from cptjax.benchmarks.attention.on_cpu import reference_ratio
from cptjax.configuration.values import whole_number
from cptjax.data.sources import find_source
from cptjax.errors import ConfigurationError
from cptjax.files import write_file
from cptjax.reporting.watch import watch

COMPARE, BLOCK_SIZES = "compare", "block_sizes"
WORK, MEMORY, CPU = "work", "memory", "cpu"
_ROW, _PLAIN = 8192, 4096
_EQUAL = 16  # documents of the row of equal ones
_PLAIN_MOST, _PACKED_MOST, _EQUAL_MOST = 1.05, 1.15, 0.25


def attention_work(
    output_dir: str,
    texts: Sequence[str] = (),
    mode: str = COMPARE,
    parts: Sequence[str] = (WORK, MEMORY, CPU),
    generations: Sequence[str] = ("v5e", "v5p", "v6e"),
    memory_generations: Sequence[str] = tuple(TOPOLOGIES),
    memory_lengths: Sequence[int] = (4096, 32768),
    head_dims: Sequence[int] = (64, 128, 256),
    splash_blocks: Sequence[Sequence[int]] = ((1024, 1024, 512),),
    candidates: Sequence[int] = (256, 512, 1024),
    rows: float = 1000,
    seconds: float = 600,
) -> dict[str, Any]:
    """Compiles attention ahead of time, and writes what was found as a table and a picture.

    Every program is compiled in a process of its own and what was found in it is kept in `output_dir`: the same command,
    started again, goes on.

    Args:
        output_dir: gets `attention.md`, `attention.svg` and `compiles/`; `block_sizes.md` in that mode.
        texts: JSON Lines files whose documents are packed into rows of 8192, where work is estimated.
        mode: "compare": ours against splash. "block_sizes": the committed table of block sizes made anew.
        parts: of "compare", what is done: "work" (estimated, over rows), "memory" (temporary bytes), "cpu" (the reference).
        generations: of TPUs, whose work is estimated.
        memory_generations, memory_lengths, head_dims: that memory is compared on; head_dims also of the block sizes.
        splash_blocks: (of queries, keys, keys computed at a time) that splash's best is taken from.
        candidates: sizes of blocks that ours are taken from.
        rows: of each text, at most.
        seconds: that one compile may take.

    Returns:
        What was written; in "compare" also by rows and pass the largest ratio of our estimated work to splash's, what is
        "not as required", and the CPU's figures.

    Raises:
        ConfigurationError: libtpu is not installed, or a setting is wrong; nothing has been compiled.
    """
    packed = mode == BLOCK_SIZES or WORK in parts
    folder = _check(output_dir, mode, parts, generations, memory_generations, texts if packed else ())
    check_libtpu()
    rows, seconds = whole_number(rows, "ROWS", minimum=1), whole_number(seconds, "SECONDS", minimum=1)
    compiles = Compiles(folder / "compiles", seconds)
    if mode == BLOCK_SIZES:
        return _block_sizes(compiles, folder, generations, head_dims, candidates, _cases(texts, folder, rows))

    cases = _cases(texts, folder, rows) if WORK in parts else []
    memory = (memory_generations, memory_lengths, head_dims)
    settings = []
    if WORK in parts:
        settings += [*compare.our_settings(generations, cases), *compare.splash_settings(generations, splash_blocks)]
    if MEMORY in parts:
        settings += [*compare.square_settings(memory_generations), *compare.memory_settings(*memory)]
    _compile_all(compiles, settings)

    work = compare.estimate(compiles, generations, cases, splash_blocks) if WORK in parts else []
    held = compare.compare_memory(compiles, *memory) if MEMORY in parts else []
    squares = compare.squares(compiles, memory_generations) if MEMORY in parts else {}
    cpu = reference_ratio() if CPU in parts else {}
    lines = table.page(work, held, squares, cpu)
    write_file(folder / "attention.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    found: dict[str, Any] = {"wrote": str(folder / "attention.md")}
    if work:
        write_file(folder / "attention.svg", picture.draw_work(work))
        found["picture"] = str(folder / "attention.svg")
    return {**found, **table.summary(work, held, squares, cpu), **cpu}


def _block_sizes(
    compiles: Compiles,
    folder: epath.Path,
    generations: Sequence[str],
    head_dims: Sequence[int],
    candidates: Sequence[int],
    cases: Sequence[compare.Case],
) -> dict[str, Any]:
    """The committed table anew, written and printed."""
    _compile_all(compiles, list(block_sizes.settings(generations, head_dims, candidates)))
    lines = block_sizes.table(compiles, generations, head_dims, candidates, cases)
    write_file(folder / "block_sizes.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    return {"wrote": str(folder / "block_sizes.md")}


def _compile_all(compiles: Compiles, settings: Sequence[tuple[str, dict]]) -> None:
    """Has every program compiled, one after another, with progress; what was found is kept."""
    distinct = [each for place, each in enumerate(settings) if each not in settings[:place]]
    for program, each in watch(distinct, len(distinct), "programs compiled"):
        found = compare.compiled(compiles, program, each)
        if "failed" in found:
            print(f"  {program}, {each}: {compare.complaint(found)}; the next run tries again.", flush=True)


def _cases(texts: Sequence[str], folder: epath.Path, rows: int) -> list[compare.Case]:
    plain = np.ones((1, _PLAIN), np.int32)
    cases = [compare.Case(f"one document of {_PLAIN}", plain, False, lambda areas: _PLAIN_MOST)]
    for text in texts:
        lengths = document_lengths(text, folder / "lengths")
        packed = packed_rows(lengths, _ROW, rows)
        cases.append(compare.Case(name_of(text), packed, True, lambda areas: _PACKED_MOST * areas.visited))
    equal = equal_documents(_ROW, _EQUAL)
    return [*cases, compare.Case(f"{_EQUAL} documents of {_ROW // _EQUAL}", equal, True, lambda areas: _EQUAL_MOST)]


def _check(
    output_dir: str,
    mode: str,
    parts: Sequence[str],
    generations: Sequence[str],
    memory_generations: Sequence[str],
    texts: Sequence[str],
) -> epath.Path:
    """The folder, made; everything that could be wrong is said before anything is compiled.

    Raises:
        ConfigurationError: a name that is none, a text that is not there, or a file in the folder's place.
    """
    for name, given, known in (
        ("MODE", [mode], (COMPARE, BLOCK_SIZES)),
        ("PARTS", parts, (WORK, MEMORY, CPU)),
        ("GENERATIONS", generations, tuple(TOPOLOGIES)),
        ("MEMORY_GENERATIONS", memory_generations, tuple(TOPOLOGIES)),
    ):
        if not given or any(each not in known for each in given):
            shown = given[0] if name == "MODE" else given
            raise ConfigurationError(f"{name} = {shown!r}; there are {', '.join(known)}.")
    for text in texts:
        find_source("text", text)
    folder = epath.Path(output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' is a file; name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
