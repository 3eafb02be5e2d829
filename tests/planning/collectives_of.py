"""Counts the collectives of any HLO dump: kind, loop, group, bytes, and whether other work is scheduled beside them.

usage: python tests/planning/collectives_of.py [--all] DUMP...     what `compiled.as_text()` gives, or XLA's own
*after_optimizations.txt; the job `plan` leaves one with --gin.HLO="'step.txt'". --all: each instruction on a line of its own.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from cptjax.counts import in_bytes  # noqa: E402
from cptjax.planning.collective_table import exposed, grouped, how, sent, table, where  # noqa: E402
from cptjax.planning.collectives import collectives_of  # noqa: E402


def main(arguments: list[str]) -> int:
    """Prints the table of each dump; the exit code."""
    paths = [each for each in arguments if each != "--all"]
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    for path in paths:
        found = collectives_of(Path(path).read_text(encoding="utf-8"))
        print(path)
        if "--all" in arguments:
            for each in sorted(found, key=lambda each: -each.sent * each.times):
                print(
                    f"{each.kind:20} {where(each):>10} {each.group:>6} {how(each):12} {in_bytes(each.sent * each.times):>8}  "
                    f"{each.dtype_shape}  {each.source}"
                )
        else:
            print("\n".join(table(grouped(found))))
        synchronous = sum(not each.asynchronous for each in found)
        print(
            f"{len(found)} collectives, {synchronous} of them synchronous; a device sends "
            f"{in_bytes(sent(found))}, {in_bytes(exposed(found))} with no work beside it\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
