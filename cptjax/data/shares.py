"""Shares of rows as whole numbers, constant or in pieces that move from one blend to another, and what they add up to."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from cptjax.errors import ConfigurationError

_DENOMINATOR = 2**40  # shares are exact up to this common denominator, and rounded to it beyond
SMALLEST_SHARE = Fraction(1, 2**20)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares that are constant in pieces, and what they add up to: every W_i(t) is a whole number of `whole`-ths.

    Attributes:
        parts: of each piece each source's share, as whole numbers above 0 that add up to `whole` in every piece.
        starts: the slot that each piece begins at, from 0; the last one does not end.
    """

    parts: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...] = (0,)

    @property
    def whole(self) -> int:
        """The denominator of every share."""
        return sum(self.parts[0])

    @functools.cached_property
    def _bases(self) -> tuple[tuple[int, ...], ...]:
        """W_i at each piece's beginning, in `whole`-ths."""
        bases = [(0,) * len(self.parts[0])]
        for piece, (begin, end) in enumerate(itertools.pairwise(self.starts)):
            bases.append(tuple(b + n * (end - begin) for b, n in zip(bases[-1], self.parts[piece], strict=True)))
        return tuple(bases)

    def at(self, t: int) -> list[int]:
        """W_i(t) of each source, in `whole`-ths."""
        piece = bisect.bisect_right(self.starts, t) - 1
        base, parts, since = self._bases[piece], self.parts[piece], t - self.starts[piece]
        return [b + n * since for b, n in zip(base, parts, strict=True)]

    def last_at_most(self, source: int, rows: int) -> int:
        """The last a with W(a) <= rows."""
        value = rows * self.whole
        piece = max(p for p, base in enumerate(self._bases) if base[source] <= value)
        return self.starts[piece] + (value - self._bases[piece][source]) // self.parts[piece][source]

    def first_at_least(self, source: int, rows: int) -> int:
        """The first t with W(t) >= rows."""
        value = rows * self.whole
        piece = max(p for p, base in enumerate(self._bases) if p == 0 or base[source] < value)
        return self.starts[piece] - (self._bases[piece][source] - value) // self.parts[piece][source]

    def between(self, begin: int, end: int) -> list[tuple[int, tuple[int, ...]]]:
        """(first slot, parts) of the pieces that slots `begin` to `end` lie in; the first is cut to begin there."""
        pieces = [(start, parts) for start, parts in zip(self.starts, self.parts, strict=True) if begin < start < end]
        return [(begin, self.parts[bisect.bisect_right(self.starts, begin) - 1]), *pieces]


def integer_parts(shares: Mapping[str, Fraction]) -> list[int]:
    """Integers in proportion to `shares`: exactly if a common denominator up to 2**40 exists, else 2**40 parts."""
    exact = _of_one(shares)
    denominator = 1
    for share in exact.values():
        denominator = denominator * share.denominator // np.gcd(denominator, share.denominator, dtype=object)
        if denominator > _DENOMINATOR:
            return parts_of(exact, _DENOMINATOR)
    return [int(share * denominator) for share in exact.values()]


def parts_of(shares: Mapping[str, Fraction], whole: int) -> list[int]:
    """Integers that add up to `whole`, in proportion to `shares` but for rounding."""
    exact = list(_of_one(shares).values())
    parts = [int(share * whole) for share in exact]
    # The largest remainders get what rounding down left over.
    by_remainder = sorted(range(len(parts)), key=lambda i: parts[i] - exact[i] * whole)
    for i in by_remainder[: whole - sum(parts)]:
        parts[i] += 1
    return parts


def _of_one(shares: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """The shares with a sum of 1; one that is too small to schedule is refused."""
    if not shares:
        raise ConfigurationError("a blend needs at least one source with a weight above 0.")
    total = sum(shares.values())
    exact = {name: weight / total for name, weight in shares.items()}
    for name, share in exact.items():
        if share < SMALLEST_SHARE:
            raise ConfigurationError(
                f"the share of {name!r} is {float(share):.3g}; the smallest possible is 2**-20, about 1e-6.\n"
                f"  Raise its weight ({float(shares[name]):.3g} of {float(total):.6g}), or leave the source out."
            )
    return exact


def ramp(before: Sequence[int], after: Sequence[int], rows: Sequence[int]) -> Shares:
    """Shares that move in equal jumps from `before` to `after`, pieces of so many `rows`, each at the middle of its jump.

    Args:
        before, after: integer shares with the same sum; 0 where a source comes or goes.
    """
    pieces = len(rows)
    parts = [
        tuple(a * (2 * pieces) + (b - a) * (2 * piece + 1) for a, b in zip(before, after, strict=True))
        for piece in range(pieces)
    ]
    return Shares(tuple(parts), tuple(itertools.accumulate(rows[:-1], initial=0)))
