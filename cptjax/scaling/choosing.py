"""Choosing among laws without having looked at the runs that the choice is judged by."""

import dataclasses
from collections.abc import Mapping, Sequence

from cptjax.errors import ConfigurationError
from cptjax.scaling.checks import check_levels
from cptjax.scaling.fitting import Problem
from cptjax.scaling.held_out import HeldOut, held_out_error, largest
from cptjax.scaling.law import Law


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A law that was considered.

    Attributes:
        inner: its error on the largest runs of those below the held-out ones: what the choice rests on. None: too few levels.
        outer: its error on the held-out runs; of the chosen law this is an honest one, of the others it is for looking at.
        reason: why there is no inner error.
    """

    law: Law
    inner: HeldOut | None
    outer: HeldOut | None
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """The law with the smallest inner error, and all that were considered in their order."""

    law: Law
    candidates: Sequence[Candidate]

    def as_table(self) -> list[dict]:
        """A row a law, for fit.json."""
        return [
            {
                "law": each.law.name,
                "chosen": each.law is self.law,
                "inner_error": each.inner.relative_error if each.inner else None,
                "held_out_error": each.outer.relative_error if each.outer else None,
                "reason": each.reason,
            }
            for each in self.candidates
        ]


def choose(problems: Mapping[str, Problem], axis: str, share: float, starts: int, seed: int, path: str) -> Choice:
    """Chooses among laws by nested hold-out: the largest levels of `axis` are put aside, and of what is left the largest again.

    Each law is fitted without both and judged on the inner ones, all of them on the same runs; the outer ones judge the law that
    was chosen, and have no part in choosing it. Of two laws within a thousandth of each other the one with fewer
    parameters is taken.

    Args:
        problems: by law's name, each with all the runs.

    Raises:
        ConfigurationError: no law can be fitted without the two largest levels.
    """
    candidates = []
    for one in problems.values():
        outer = largest(one.columns[axis], share)
        try:
            if outer.all():
                raise ConfigurationError(f"{axis} has one level")
            left = one.only(~outer)
            inner = largest(left.columns[axis], share)
            if inner.all():
                raise ConfigurationError(f"{axis} has two levels")
            check_levels(left.only(~inner), path, ())
        except ConfigurationError as error:
            candidates.append(Candidate(one.law, None, None, str(error).splitlines()[0]))
            continue
        print(f"choosing: {one.law.name}", flush=True)
        candidates.append(
            Candidate(
                one.law,
                held_out_error(left, axis, inner, starts, seed),
                held_out_error(one, axis, outer, starts, seed),
            )
        )
    judged = [each for each in candidates if each.inner is not None]
    if not judged:
        raise ConfigurationError(
            f"LAW names {len(candidates)} laws, and none can be chosen by the largest {axis}: {candidates[0].reason}.\n"
            "  Choosing takes two levels more than a fit: run more of them, or name one law."
        )
    least = min(each.inner.relative_error for each in judged)
    near = [each for each in judged if each.inner.relative_error <= least * 1.001 + 1e-12]
    chosen = min(near, key=lambda each: (len(each.law.parameters), each.inner.relative_error))
    return Choice(chosen.law, candidates)
