"""What a run reads, as people write it: stages, each a set of weights (shares of tokens) and where it ends."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction as Exact

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError

REPLACE, ADD = "replace", "add"
BUDGETS = (REPLACE, ADD)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A stage ends when the run has read `n` tokens (from its start, not the stage's)."""

    n: float


@dataclasses.dataclass(frozen=True)
class Fraction:
    """A stage ends at the fraction `of_run` of the run's steps."""

    of_run: float

    def __post_init__(self):
        if not is_share(self.of_run) or not 0 < self.of_run < 1:
            raise ConfigurationError(f"a stage ends at {self.of_run!r} of the run: it is a share, above 0 and below 1.")


@dataclasses.dataclass(frozen=True)
class LrFraction:
    """A stage ends when the learning rate has fallen to `of_peak` of its peak (after the peak)."""

    of_peak: float

    def __post_init__(self):
        if not is_share(self.of_peak) or not 0 < self.of_peak < 1:
            raise ConfigurationError(
                f"a stage ends where the learning rate is {self.of_peak!r} of its peak: it is a share, above 0 and below 1."
            )


Trigger = Tokens | Fraction | LrFraction


@dataclasses.dataclass(frozen=True)
class ByTemperature:
    """Weights of many sources by their size: size ** (1 / temperature), the size in what shares are counted in.

    temperature: 1 reads each as often as every other; the higher, the more alike their shares (arXiv 1907.05019 uses 5).
    """

    sources: Sequence[str]
    temperature: float = 1.0

    def __post_init__(self):
        names = self.sources
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise ConfigurationError(f"ByTemperature.sources = {names!r}: it is a list of sources' names.")
        if not is_share(self.temperature) or not self.temperature:
            raise ConfigurationError(f"ByTemperature.temperature = {self.temperature!r}: it is a number above 0.")

    def of_sizes(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The weights for these sizes, which add up to 1."""
        logs = {name: math.log(sizes[name]) / self.temperature for name in self.sources}
        whole = max(logs.values()) + math.log(sum(math.exp(x - max(logs.values())) for x in logs.values()))
        return {name: math.exp(x - whole) for name, x in logs.items()}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stretch of the run.

    Attributes:
        weights: shares, of any scale.
        until: where it ends; None for the last stage.
        ramp: how long, from its beginning, the weights move from those of the stage before to its own; None: at once.
    """

    name: str
    weights: Mapping[str, float] | ByTemperature
    until: Trigger | None = None
    ramp: Tokens | Fraction | None = None


@dataclasses.dataclass(frozen=True)
class Ramp:
    """Weights that move, in equal steps of the run, from `before` to `after`."""

    before: Mapping[str, float] | ByTemperature
    after: Mapping[str, float] | ByTemperature


Weights = Mapping[str, float] | ByTemperature | Ramp


@dataclasses.dataclass(frozen=True)
class Blend:
    """The stages of a run, in order.

    Raises:
        ConfigurationError: no stage, two of one name, a negative weight or none above 0, a trigger missing or extra.
    """

    stages: Sequence[Stage]

    def __post_init__(self):
        object.__setattr__(self, "stages", tuple(self.stages))
        names = [stage.name for stage in self.stages]
        if not names:
            raise ConfigurationError("a blend needs at least one stage.")
        if len(set(names)) < len(names):
            raise ConfigurationError(f"two stages have the same name: {names}.")
        for n, stage in enumerate(self.stages):
            weights = (
                dict.fromkeys(stage.weights.sources, 1) if isinstance(stage.weights, ByTemperature) else stage.weights
            )
            bad = {name: weight for name, weight in weights.items() if not is_share(weight)}
            if bad or not any(weights.values()):
                raise ConfigurationError(
                    f"stage {stage.name!r} has the weights {dict(weights)}.\n"
                    "  Weights are numbers from 0, and at least one is above 0."
                )
            if stage.ramp is not None and (n == 0 or not isinstance(stage.ramp, Tokens | Fraction)):
                raise ConfigurationError(
                    f"stage {stage.name!r} has the ramp {stage.ramp!r}: it is Tokens or Fraction (how long the weights take "
                    "to move from those of the stage before), and the first stage has none."
                )
            last = n == len(names) - 1
            if last and stage.until is not None:
                raise ConfigurationError(f"the last stage, {stage.name!r}, ends with the run: leave its `until` out.")
            if not last and not isinstance(stage.until, Trigger):
                raise ConfigurationError(
                    f"stage {stage.name!r} ends nowhere: its `until` is {stage.until!r}.\n"
                    "  Every stage but the last needs one of Tokens, Fraction and LrFraction."
                )

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source with a weight above 0, in the order of first mention."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in named(stage.weights)))


def named(weights: Weights) -> list[str]:
    """The sources that these weights read from."""
    if isinstance(weights, Ramp):
        return list(dict.fromkeys([*named(weights.before), *named(weights.after)]))
    return list(weights.sources) if isinstance(weights, ByTemperature) else [n for n, w in weights.items() if w]


def budget(tokens: float, ratio: float, replay_budget: str = REPLACE) -> float:
    """Tokens of the whole run: `tokens` themselves, of which `ratio` is replayed text ("replace"); or so many that `tokens`
    of them are not replayed ("add"): the target's text is then read as much as without replay.
    """
    if replay_budget not in BUDGETS:
        raise ConfigurationError(f"REPLAY_BUDGET is {replay_budget!r}; it is {' or '.join(map(repr, BUDGETS))}.")
    if replay_budget == REPLACE:
        return tokens
    if not is_share(ratio) or ratio >= 1:
        raise ConfigurationError(
            f"with REPLAY_BUDGET = 'add' the replay ratio is below 1, not {ratio!r}: nothing else would be read."
        )
    return math.ceil(whole_number(tokens, "TRAIN_TOKENS", minimum=1) / (1 - _exact(ratio)))


def replay(
    target: str | Sequence[str] | Mapping[str, float], general: str | Sequence[str] | Mapping[str, float], ratio: float
) -> dict[str, float]:
    """Weights in which `general` (old text, replayed against forgetting) has exactly `ratio` of the tokens.

    `target` has the rest. Each side is one source, several in equal shares, or several with weights of any scale.
    """
    if not is_share(ratio) or ratio > 1:
        raise ConfigurationError(f"the replay ratio is {ratio!r}; it is the share of tokens from GENERAL, from 0 to 1.")
    sides = [(_shares("target", target), 1 - _exact(ratio)), (_shares("general", general), _exact(ratio))]
    both = set(sides[0][0]) & set(sides[1][0])
    if both:
        raise ConfigurationError(
            f"{sorted(both)[0]!r} is on both sides of the replay ratio, so its share would not be the ratio."
        )
    return {name: float(share * part) for shares, part in sides for name, share in shares.items() if share * part}


def _shares(side: str, given: str | Sequence[str] | Mapping[str, float]) -> dict[str, Exact]:
    weights = (
        {given: 1} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, 1)
    )
    if not weights or not all(map(is_share, weights.values())) or not any(weights.values()):
        raise ConfigurationError(
            f"the {side} side of the replay is {given!r}: a source's name, several, or names with weights."
        )
    total = sum(map(_exact, weights.values()))
    return {name: _exact(weight) / total for name, weight in weights.items()}


def is_share(value: object) -> bool:
    """Whether a value can be a weight or a share: a finite number from 0 on."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _exact(value: float) -> Exact:
    return Exact(str(value))  # 0.3 is three tenths, as it was written
