"""A study's grid: sizes x budgets x arms x seeds, worked out into points before anything starts."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.configuration.values import whole_number
from cptjax.data.sources import Where
from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.ladder import cross_lingual
from cptjax.studies.arms import RANDOM, Arm, Contrast, share_of

FEW_SEEDS, ONE_RATES_SIZE = "few_seeds", "one_rates_size"  # what `allow` switches off
_NO_NAME = re.compile(r"[^A-Za-z0-9]+")


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of the grid.

    Attributes:
        tokens: target tokens; total: all tokens it reads, in whole batches; prior: target tokens of the arm it starts from,
            which of its points that is, or None at random weights.
        step: the study's step that trains it.
    """

    arm: Arm
    size: str
    seed: int
    tokens: int
    total: int
    prior: int | None
    step: str

    @property
    def name(self) -> str:
        """Of the run's folder in its step's."""
        after = "" if self.prior is None else f"_after_{self.prior}"
        return f"{self.arm.name}{after}_{self.tokens}_seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a study declares.

    Attributes:
        sizes: of the ladder (models/ladder.py): "A", "B", "C", "E", or labels of its table.
        sources: name -> paths; every run is measured on all, so all arms share one validation set.
        arms: in any order; an arm may continue another.
        seeds: of each point, each one order of the data and one draw of random weights.
        contrast: the primary one; everything else is exploratory.
        rates_at: sizes at which learning rates are tried: another size takes those of the nearest, times
            (N / N there) ** -rate_exponent, N without embeddings. An arm that continues another is tried where both are run.
        rates_budget: which of an arm's budgets rates are tried with, counted from 0; rates_tokens: so many tokens instead.
        widen, allow_edge: of `find_rates`.
        final_rate: what a re-warmed run's learning rate falls to. Not a tenth of the peak: a run of few steps, whose peak lies
            between two of them, would end above a tenth of the highest rate that it had, and not count as annealed.
        tokenizer, rows_dir: as the runs are told; {step} stands for a step's folder.
        smoke: minutes, to prove the wiring: there is no verdict.
        allow: refusals that are switched off, which the report says: "few_seeds" (fewer than three, PROTOCOL.md 5),
            "one_rates_size" (learning rates tried at one size, PROTOCOL.md 4). A smoke run is refused neither.
        settings: more macros of the runs, as a step's settings.
        speed: tokens per second by size, or FLOPs per second of all, to tell hours from; or the folder of a study that has run,
            which measured it; None: no hours are told.
        pilot: the folder of a study whose seeds' deviation tells how many seeds the contrast needs; None: none was run.
    """

    sizes: Sequence[str | float]
    sources: Mapping[str, Where]
    arms: Sequence[Arm]
    seeds: float
    contrast: Contrast
    tokenizer: str
    rows_dir: str
    rates_at: Sequence[str | float]
    batch_tokens: float = 4096
    sequence_length: float = 256
    rates_budget: float = 0
    rates_tokens: float | None = None
    rate_exponent: float = 0.0
    widen: float = 2
    allow_edge: bool = False
    final_rate: str = "peak/20"
    smoke: bool = False
    allow: Sequence[str] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    speed: Mapping[str, float] | float | str | None = None
    pilot: str | None = None

    def __post_init__(self):
        for name in ("seeds", "batch_tokens", "sequence_length"):
            object.__setattr__(self, name, whole_number(getattr(self, name), f"Grid.{name}", minimum=1))
        for name in ("rates_budget", "widen"):
            object.__setattr__(self, name, whole_number(getattr(self, name), f"Grid.{name}"))
        for name in ("sizes", "rates_at"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        self._check()

    def arm(self, name: str) -> Arm:
        """The arm of that name. Raises ConfigurationError where there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ConfigurationError(f"the study has no arm {name!r}; it has {', '.join(arm.name for arm in self.arms)}.")

    def model(self, size: str | float) -> DecoderConfig:
        """The ladder's model of that size."""
        return cross_lingual(size)

    def sizes_of(self, arm: Arm) -> tuple:
        """The grid's sizes that the arm is run at."""
        return tuple(size for size in self.sizes if arm.sizes is None or size in arm.sizes)

    def depth(self, arm: Arm) -> int:
        """How many arms an arm of the study comes after."""
        return 0 if arm.start == RANDOM else 1 + self.depth(self.arm(arm.start))

    def rates_from(self, arm: Arm) -> Arm | None:
        """The arm whose learning rates it takes, itself perhaps; None for one that inherits."""
        if arm.learning_rates == "inherit":
            return None
        return arm if arm.searches else self.rates_from(self.arm(arm.learning_rates))

    def rates_sizes(self, arm: Arm) -> list[str | float]:
        """The sizes at which learning rates are tried for the arm."""
        return [size for size in self.rates_at if arm.start == RANDOM or size in self.sizes_of(arm)]

    def nearest_rates(self, arm: Arm, size: str | float) -> str | float:
        """The size, of those at which the arm's learning rates are tried, that is nearest in parameters."""
        here = non_embedding(self.model(size))
        return min(self.rates_sizes(arm), key=lambda each: abs(math.log(non_embedding(self.model(each)) / here)))

    def budgets(self, arm: Arm) -> list[tuple[int | None, int]]:
        """(prior, tokens) of each of an arm's points, at one size and seed."""
        if arm.start == RANDOM:
            return [(None, whole_number(float(tokens), f"tokens of arm {arm.name!r}")) for tokens in arm.tokens]
        before = sorted({tokens for _, tokens in self.budgets(self.arm(arm.start))})
        chosen = before[-1:] if arm.prior is None else [int(tokens) for tokens in arm.prior]
        if missing := [tokens for tokens in chosen if tokens not in before]:
            raise ConfigurationError(
                f"arm {arm.name!r} starts from {arm.start!r} after {missing[0]:,} tokens, which has {before}."
            )
        return [
            (prior, round(share_of(tokens) * prior) if isinstance(tokens, str) else int(tokens))
            for prior in chosen
            for tokens in arm.tokens
        ]

    def points(self) -> list[Point]:
        """Every run of the grid but those that only try a learning rate: by depth, then by size, arm, budget and seed."""
        found = []
        for arm in sorted(self.arms, key=self.depth):
            for size in self.sizes_of(arm):
                step = f"runs_{size}_{self.depth(arm)}_{arm.schedule}"
                if arm.final_rate is not None:  # runs of one step share their schedule
                    step += "_to_" + _NO_NAME.sub("_", arm.final_rate)
                budgets = self.budgets(arm)
                if arm.plateau:
                    budgets = [max(budgets, key=lambda pair: pair[1])]
                for prior, tokens in budgets:
                    for seed in range(self.seeds):
                        found.append(Point(arm, str(size), seed, tokens, self.total(arm, tokens), prior, step))
        return found

    def total(self, arm: Arm, tokens: int) -> int:
        """All tokens of a run with so many target tokens: replay comes on top, and batches are whole."""
        batches = math.ceil(round(tokens / arm.counted, 6) / self.batch_tokens)
        return max(1, batches) * self.batch_tokens

    def declared(self) -> dict[str, Any]:
        """What was named before the first run, as plain data: grid, contrast, metric, seeds (PROTOCOL.md 14)."""
        said = dataclasses.asdict(self)
        for name in ("speed", "pilot", "tokenizer", "rows_dir", "sources"):  # the text is checked by its digests
            del said[name]
        return said | {
            "sources": sorted(self.sources),
            "stopping": "every point of the grid once, none added after a look",
        }

    def rules(self) -> list[str]:
        """Sentences on what the runs are held to, and on what was switched off: for the report."""
        how = (
            "the same"
            if self.rate_exponent == 0
            else f"times (N / N there) ** -{self.rate_exponent:g}, N without embeddings"
        )
        said = [
            f"Learning rates are tried at {', '.join(map(str, self.rates_at))}; any other size takes those of the nearest, {how}."
        ]
        off = [f'"{name}"' for name in self.allow] + (["allow_edge"] if self.allow_edge else [])
        return said + ([f"Switched off: {', '.join(off)}."] if off else [])

    def _check_protocol(self) -> None:
        if unknown := set(self.allow) - {FEW_SEEDS, ONE_RATES_SIZE}:
            raise ConfigurationError(
                f"Grid.allow names {unknown.pop()!r}; there are {FEW_SEEDS!r} and {ONE_RATES_SIZE!r}."
            )
        few = self.seeds < 3 and FEW_SEEDS, len(self.rates_at) < 2 and ONE_RATES_SIZE
        found = (
            f"seeds = {self.seeds}, and a study has three",
            f"rates_at = {list(self.rates_at)}, and rates are tried at two",
        )
        for name, what in zip(few, found, strict=True):
            if name and name not in self.allow and not self.smoke:
                raise ConfigurationError(
                    f"Grid.{what} (PROTOCOL.md 4 and 5).\n"
                    f"  Grid.allow (ALLOW) = [{name!r}] lets it be, and the report says so; or SMOKE = True, without a verdict."
                )

    def _check(self) -> None:
        self._check_protocol()
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"the study has no arms, or two of one name: {', '.join(names) or 'none'}.")
        if not self.sizes or not self.rates_at:
            raise ConfigurationError(
                f"Grid.sizes = {list(self.sizes)}, rates_at = {list(self.rates_at)}: name one of each."
            )
        for size in (*self.sizes, *self.rates_at):
            self.model(size)  # refuses what the ladder has not
        for arm in self.arms:
            self._check_arm(arm)
        for name in (self.contrast.better, self.contrast.worse):
            arm = self.arm(name)
            picked = [pair for pair in self.budgets(arm) if self.contrast.picks(name, *pair)]
            if arm.plateau or len(picked) != 1 or self.contrast.size not in self.sizes_of(arm):
                found = "several" if len(picked) > 1 and not arm.plateau else "no annealed point"
                raise ConfigurationError(
                    f"the contrast compares {name!r} at size {self.contrast.size!r} after {self.contrast.tokens:g} tokens: {found}"
                    f" of that arm's ({self.budgets(arm)}: prior, tokens). Contrast.prior and worse_tokens tell them apart."
                )
        if self.arm(self.contrast.better).target != self.arm(self.contrast.worse).target:
            raise ConfigurationError("the contrast compares arms of different targets.")

    def _check_arm(self, arm: Arm) -> None:
        if unknown := {*arm.sources, arm.target} - set(self.sources):
            raise ConfigurationError(f"arm {arm.name!r} reads {unknown.pop()!r}; sources: {', '.join(self.sources)}.")
        seen, at = [arm.name], arm
        while at.start != RANDOM:
            at = self.arm(at.start)
            if at.name in seen:
                raise ConfigurationError(f"arms continue each other in a circle: {' from '.join([*seen, at.name])}.")
            seen.append(at.name)
        if missing := set(self.sizes_of(arm)) - set(self.sizes_of(at)):
            raise ConfigurationError(f"arm {arm.name!r} is run at {missing.pop()!r}, where {at.name!r} is not.")
        rates, seen = arm, [arm.name]
        while isinstance(rates.learning_rates, str) and rates.learning_rates != "inherit":
            rates = self.arm(rates.learning_rates)
            if rates.name in seen:
                raise ConfigurationError(f"arms take each other's learning rates in a circle: {', '.join(seen)}.")
            seen.append(rates.name)
        if rates.searches and not self.rates_sizes(rates):
            raise ConfigurationError(
                f"learning rates of {rates.name!r} are tried at none of its sizes ({list(self.rates_at)})."
            )
        if rates.searches and self.depth(rates) > self.depth(arm):
            raise ConfigurationError(f"arm {arm.name!r} takes the rates of {rates.name!r}, which comes after it.")
        self.budgets(arm)


def non_embedding(config: DecoderConfig) -> int:
    """Parameters without embeddings."""
    from cptjax.models.model import parameter_counts

    return parameter_counts(config).non_embedding
