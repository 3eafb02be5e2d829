"""What a law is: a formula over the columns of a table of runs, with parameters that are fitted in logs where they scale."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cptjax.errors import ConfigurationError

Columns = Mapping[str, Float[Array, " runs"]]  # the runs' columns by name, as in the table RUNS
Coordinates = Mapping[str, Float[Array, ""]]  # what is fitted, by coordinate: "log_A", "alpha"
_NO_TOKENS = 1e-9  # stands for none under a logarithm: far below one token, and with a derivative


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    Attributes:
        name: as the paper writes it: "A", "alpha".
        log: whether its logarithm is what is fitted, so that the value is positive.
        bounds: of what is fitted; an estimate on a bound is warned of.
        starts: the range of what is fitted that the starting points are drawn from.
    """

    name: str
    log: bool
    bounds: tuple[float, float]
    starts: tuple[float, float]

    @property
    def coordinate(self) -> str:
        """What the law's formula calls it: "log_A", "alpha"."""
        return f"log_{self.name}" if self.log else self.name


def scale(
    name: str, starts: tuple[float, float] = (0.0, 25.0), bounds: tuple[float, float] = (-30.0, 80.0)
) -> Parameter:
    """A positive factor, fitted as its logarithm. The starts are those of Hoffmann et al. (arXiv 2203.15556)."""
    return Parameter(name, True, bounds, starts)


def offset(name: str = "E") -> Parameter:
    """The loss that no budget removes: fitted as its logarithm, from Hoffmann's starts."""
    return Parameter(name, True, (-12.0, 4.0), (-1.0, 1.0))


def exponent(
    name: str, starts: tuple[float, float] = (0.0, 2.0), bounds: tuple[float, float] = (0.0, 5.0)
) -> Parameter:
    """An exponent, fitted as it is."""
    return Parameter(name, False, bounds, starts)


@dataclasses.dataclass(frozen=True)
class Law(abc.ABC):
    """A scaling law. A subclass names its columns and parameters and writes down `log_terms`; its docstring says whose it is.

    Attributes:
        name: what LAW calls it.
        columns: the columns of the table that it reads, in the formula's order.
        parameters: what is fitted.
        axes: for each column that is an axis of the grid, the parameters that only its levels can tell apart: a fit needs
            one level more (PROTOCOL 13).
        may_be_zero: columns in which 0 is a value.
        given: parameters that another fit determines; a fit of this law is told them (`frozen`).
        target: the column that it predicts; all but a few predict the loss.
        along_schedule: whether points of a learning rate that has not come down are what it is about.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    parameters: ClassVar[tuple[Parameter, ...]]
    axes: ClassVar[Mapping[str, tuple[str, ...]]]
    may_be_zero: ClassVar[frozenset[str]] = frozenset()
    given: ClassVar[tuple[str, ...]] = ()
    target: ClassVar[str] = "loss"
    along_schedule: ClassVar[bool] = False

    @abc.abstractmethod
    def log_terms(self, p: Coordinates, runs: Columns) -> Sequence[Float[Array, "..."]]:
        """The logarithms of the terms whose sum is what it predicts (a loss: nats per token); each broadcasts against the runs."""

    def log_loss(self, x: Float[Array, " parameters"], runs: Columns) -> Float[Array, " runs"]:
        """The logarithm of what is predicted, from what is fitted, in the parameters' order."""
        p = {parameter.coordinate: x[n] for n, parameter in enumerate(self.parameters)}
        size = jnp.shape(runs[self.columns[0]])
        terms = [jnp.broadcast_to(term, size) for term in self.log_terms(p, runs)]
        return jax.nn.logsumexp(jnp.stack(terms), axis=0)

    def predicted(self, x: Float[Array, " parameters"], runs: Columns) -> Float[Array, " runs"]:
        """What it predicts, from what is fitted, in the parameters' order."""
        return jnp.exp(self.log_loss(x, runs))

    def predict(self, values: Mapping[str, float], runs: Mapping[str, np.ndarray | float]) -> np.ndarray:
        """What it predicts (a loss: nats per token), float64, for parameters by name and columns by name (which broadcast).

        Raises:
            ConfigurationError: a parameter or a column is missing.
        """
        for what, needed, there in (("value for", self.names, values), ("column", self.columns, runs)):
            if missing := [name for name in needed if name not in there]:
                raise ConfigurationError(f"The law '{self.name}' has no {what} {', '.join(missing)}.")
        arrays = np.broadcast_arrays(*(np.asarray(runs[name], np.float64) for name in self.columns))
        flat = {name: array.reshape(-1) for name, array in zip(self.columns, arrays, strict=True)}
        with jax.enable_x64(True):
            found = np.array(self.predicted(jnp.asarray(self.fitted_from(values)), flat))
        return found.reshape(arrays[0].shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names."""
        return tuple(parameter.name for parameter in self.parameters)

    def fitted_from(self, values: Mapping[str, float]) -> np.ndarray:
        """What is fitted (float64 [parameters], logs of scales) from the values by name."""
        return np.array(
            [np.log(values[one.name]) if one.log else values[one.name] for one in self.parameters], np.float64
        )

    def values_from(self, fitted: np.ndarray) -> dict[str, float]:
        """The values by name from what is fitted."""
        return {
            one.name: float(np.exp(x)) if one.log else float(x) for one, x in zip(self.parameters, fitted, strict=True)
        }


def log_tokens(tokens: Float[Array, " runs"]) -> Float[Array, " runs"]:
    """The logarithm of a number of tokens that may be 0, for sums of tokens in logs."""
    return jnp.log(jnp.maximum(tokens, _NO_TOKENS))
