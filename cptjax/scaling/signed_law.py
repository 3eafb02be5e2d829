"""Laws with terms that are subtracted: no sum of logarithms, and still fitted by the logarithm of what they predict."""

import abc

import jax.numpy as jnp
from jaxtyping import Array, Float

from cptjax.scaling.law import Columns, Coordinates, Law

_LEAST = 1e-2  # below, the logarithm goes on as a straight line: where a law is negative a fit still finds its way out


class SignedLaw(Law):
    """A law that says its prediction itself, in `value`."""

    @abc.abstractmethod
    def value(self, p: Coordinates, runs: Columns) -> Float[Array, " runs"]:
        """What the law predicts of each run; its parameters may make it negative, which no run is."""

    def log_terms(self, p, runs):
        value = self.value(p, runs)
        # Of a fit alone: `predict` says the value itself.
        return [jnp.where(value > _LEAST, jnp.log(jnp.maximum(value, _LEAST)), jnp.log(_LEAST) + value / _LEAST - 1)]

    def predicted(self, x, runs):
        p = {parameter.coordinate: x[n] for n, parameter in enumerate(self.parameters)}
        return jnp.broadcast_to(self.value(p, runs), jnp.shape(runs[self.columns[0]]))
