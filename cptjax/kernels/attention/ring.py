"""Attention of rows that are cut over devices: keys and values travel, queries stay (arXiv 2310.01889).

Of n devices each holds two of a row's 2n pieces, the d-th from the front and the d-th from the back, so that causality gives all
of them the same work (arXiv 2311.09431). A hop brings the keys of the two devices k places away, so that documents which reach
over few pieces need few hops: a plan made once for a batch says how many, the same on all devices, and the rest are left out.
What the hops find is put together by the log of their sums of exponentials. The gradient travels again rather than keep what
came by.

Everything here runs inside `shard_map` over the axis that cuts rows.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from cptjax.kernels.attention.intervals import Intervals
from cptjax.kernels.attention.residuals import LOG_SUM, RESULT


class Ring(NamedTuple):
    """The mesh axis that cuts rows, and its size."""

    axis: str
    size: int

    def hops(self) -> tuple[int, ...]:
        """Distances of the devices whose keys a device does not have, as shifts; the nearest first."""
        shifts = [shift for hop in range(1, self.size // 2 + 1) for shift in (hop, -hop)]
        return tuple(shifts[: self.size - 1])


class Local(NamedTuple):
    """Attention on one device, [batch, length, heads, head_dim]: of queries to keys of another length, by a plan of theirs.

    forward: (query, key, value, plan) -> what is read, and the log-sums [batch, length, heads].
    gradients: (query, key, value, plan, cotangent, log_sum, delta) -> of query, key and value, where log_sum and delta (the
        sum over result times cotangent) are of all keys and not of these alone.
    """

    forward: Callable
    gradients: Callable


class RingPlan(NamedTuple):
    """plans: for each shift, its own device's (0) first, a plan for either piece. needed: bool [shifts], on all devices alike."""

    plans: tuple
    needed: jax.Array


def plan_ring(intervals: Intervals, ring: Ring, everywhere: tuple[str, ...], plan: Callable) -> RingPlan:
    """The plan of a device's two pieces of queries, which see the keys in `intervals` (counted in the whole row).

    Args:
        everywhere: all mesh axes: devices that exchange anything must agree to.
        plan: (intervals, keys) -> the plan of the local implementation.
    """
    piece = intervals.first.shape[1] // 2
    plans, needed = [], []
    for shift in (0, *ring.hops()):
        device = (jax.lax.axis_index(ring.axis) + shift) % ring.size
        both = []
        for place in (device, 2 * ring.size - 1 - device):
            first = jnp.maximum(intervals.first - place * piece, 0)
            last = jnp.minimum(intervals.last - place * piece, piece - 1)
            both.append((Intervals(first, last), jnp.any(first <= last)))
        plans.append(tuple(plan(held, piece) for held, _ in both))
        needed.append(both[0][1] | both[1][1])
    return RingPlan(tuple(plans), jax.lax.pmax(jnp.stack(needed).astype(jnp.int32), everywhere) > 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def ring_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, plan: RingPlan, ring: Ring, local: Local
) -> tuple[jax.Array, jax.Array]:
    """What this device's queries [batch, two pieces, heads, head_dim] read from the keys and values of all devices.

    Returns it, and the log-sums, float32 [batch, two pieces, heads], which carry no gradient.
    """
    return _forward(query, key, value, plan, ring, local)[0]


def _pieces(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    return tuple(jnp.split(array, 2, axis=1))


def _from(arrays: tuple[jax.Array, ...], shift: int, ring: Ring) -> tuple[jax.Array, ...]:
    """Those of the device `shift` places on."""
    pairs = [((device + shift) % ring.size, device) for device in range(ring.size)]
    return tuple(jax.lax.ppermute(array, ring.axis, pairs) for array in arrays)


def _forward(query, key, value, plan, ring, local):
    def add(so_far, held, plans):
        for keys, values, its in zip(*(_pieces(array) for array in held), plans, strict=True):
            so_far = _merged(so_far, local.forward(query, keys, values, its))
        return so_far

    nothing = jnp.zeros(query.shape, jnp.float32), jnp.full(query.shape[:3], -jnp.inf)
    found = add(nothing, (key, value), plan.plans[0])
    for number, shift in enumerate(ring.hops(), 1):
        found = jax.lax.cond(
            plan.needed[number],
            lambda found, shift=shift, number=number: add(found, _from((key, value), shift, ring), plan.plans[number]),
            lambda found: found,
            found,
        )
    out, log_sum = checkpoint_name(found[0].astype(query.dtype), RESULT), checkpoint_name(found[1], LOG_SUM)
    return (out, log_sum), (query, key, value, plan, out, log_sum)


def _merged(one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Results over two sets of keys, as one over both; float32. Log-sums may be -inf, not both."""
    log_sum = jnp.logaddexp(one[1], other[1])
    shares = (jnp.exp(each - log_sum)[..., None] for each in (one[1], other[1]))
    return sum(share * each[0].astype(jnp.float32) for share, each in zip(shares, (one, other), strict=True)), log_sum


def _backward(ring, local, saved, cotangents):
    query, key, value, plan, out, log_sum = saved
    cotangent, _ = cotangents
    delta = jnp.sum(out.astype(jnp.float32) * cotangent.astype(jnp.float32), axis=-1)

    def gradients(held, plans):
        of_query, of_held = 0.0, []
        for keys, values, its in zip(*(_pieces(array) for array in held), plans, strict=True):
            found, *of_piece = local.gradients(query, keys, values, its, cotangent, log_sum, delta)
            of_query = of_query + found.astype(jnp.float32)
            of_held.append(of_piece)
        return of_query, *(jnp.concatenate(pieces, 1).astype(jnp.float32) for pieces in zip(*of_held, strict=True))

    found = gradients((key, value), plan.plans[0])
    for number, shift in enumerate(ring.hops(), 1):

        def hop(found, shift=shift, number=number):
            of_query, *of_held = gradients(_from((key, value), shift, ring), plan.plans[number])
            home = of_query, *_from(tuple(of_held), -shift, ring)
            return tuple(so_far + more for so_far, more in zip(found, home, strict=True))

        found = jax.lax.cond(plan.needed[number], hop, lambda found: found, found)
    of_inputs = (gradient.astype(array.dtype) for gradient, array in zip(found, (query, key, value), strict=True))
    return *of_inputs, None


ring_attention.defvjp(_forward, _backward)


def balanced(array: jax.Array, ring: Ring) -> jax.Array:
    """[batch, 2 pieces, ...] of a row cut in order (device d has pieces 2d and 2d + 1) -> pieces d and 2n - 1 - d."""
    even, odd = _pieces(array)

    def pairs(parity: int) -> list[tuple[int, int]]:
        places = [2 * device + parity for device in range(ring.size)]
        return [(device, min(place, 2 * ring.size - 1 - place)) for device, place in enumerate(places)]

    even, odd = (jax.lax.ppermute(piece, ring.axis, pairs(parity)) for parity, piece in enumerate((even, odd)))
    swapped = jax.lax.axis_index(ring.axis) % 2 == 1  # piece d is even where d is
    return jnp.concatenate([jnp.where(swapped, odd, even), jnp.where(swapped, even, odd)], axis=1)


def in_order(array: jax.Array, ring: Ring) -> jax.Array:
    """The reverse of `balanced`."""
    front, back = _pieces(array)
    swapped = jax.lax.axis_index(ring.axis) % 2 == 1
    even, odd = jnp.where(swapped, back, front), jnp.where(swapped, front, back)

    def pairs(parity: int) -> list[tuple[int, int]]:
        places = [2 * device + parity for device in range(ring.size)]
        return [(min(place, 2 * ring.size - 1 - place), device) for device, place in enumerate(places)]

    pieces = (jax.lax.ppermute(piece, ring.axis, pairs(parity)) for parity, piece in enumerate((even, odd)))
    return jnp.concatenate(list(pieces), axis=1)
