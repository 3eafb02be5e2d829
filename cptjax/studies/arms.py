"""What a study compares, as a gin file declares it: arms, and the contrast that was named before the first run."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from cptjax.errors import ConfigurationError

RANDOM = "random"
METRICS = ("bits_per_byte", "loss")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
_SHARE = re.compile(r"\d+(\.\d+)?%")


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs of one kind: at each size, each budget and each seed of a grid, one.

    Attributes:
        blend: shares of tokens by source: {"chinese": 0.7, "english": 0.3} replays 30% of English.
        target: the source whose held-out loss is the arm's.
        tokens: budgets, each a run of its own with its own complete schedule. "20%" is of the tokens that the arm which it starts
            from had read (a cooldown, charged to the point).
        counts: what budgets are of: the "target"'s tokens, and what is replayed comes on top; or "all" tokens, as also where the
            blend does not hold the target, or changes (`then`).
        start: "random", or the arm that it continues, at the same size and seed.
        prior: the budgets of that arm to continue from; None: its largest.
        moments: carry the optimizer's (a branch); else the weights alone (re-warmed).
        learning_rates: three at least, of which the best is found at the grid's `rates_at`; or the arm whose rates it takes; or
            "inherit", the rate that the arm it starts from was at. A plateau takes those of another.
        schedule: the name of a file in gin/recipes/schedules. final_rate: what the rate of a "rewarm" falls to ("peak/10"); None:
            the grid's.
        plateau: one run through all budgets at a constant rate, saved at each: a trunk. Its own points are not annealed, so no
            law is fitted to them.
        sizes: those of the grid that it is run at; None: all.
        then: another blend, read from where the learning rate has fallen to `switch` of its peak (arXiv 2407.07263).
        as_prior: its tokens are prior tokens of the law L(N, D, D'), with D' = 0: a trunk that is only cooled down.
        table: the table of runs that its points are written to, or several: {source: table}, each with the loss on that source;
            None: one of its own.
    """

    name: str
    blend: Mapping[str, float]
    target: str
    tokens: Sequence[float | str]
    learning_rates: Sequence[float] | str
    start: str = RANDOM
    prior: Sequence[float] | None = None
    moments: bool = False
    schedule: str = "rewarm"
    plateau: bool = False
    sizes: Sequence[str] | None = None
    counts: str = "target"
    then: Mapping[str, float] | None = None
    switch: float = 0.2
    as_prior: bool = False
    table: str | Mapping[str, str] | None = None
    final_rate: str | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name == RANDOM:
            raise ConfigurationError(f"an arm is named {self.name!r}; a name has letters, digits and single '_' in it.")
        where = f"arm {self.name!r}"
        for blend in (self.blend, *([self.then] if self.then is not None else [])):
            if any(not 0 < share <= 1 for share in blend.values()) or abs(sum(blend.values()) - 1) > 1e-6:
                raise ConfigurationError(f"{where}: blend = {dict(blend)}: shares above 0 that add up to 1.")
        if self.counts not in ("target", "all"):
            raise ConfigurationError(f"{where}: counts = {self.counts!r}: budgets are of the 'target', or of 'all'.")
        if not self.tokens or any(not _is_budget(budget) for budget in self.tokens):
            raise ConfigurationError(f"{where}: tokens = {list(self.tokens)}: budgets above 0, or shares as '20%'.")
        shares = any(isinstance(budget, str) for budget in self.tokens)
        if self.start == RANDOM and (self.prior is not None or self.moments or shares):
            raise ConfigurationError(
                f"{where} starts at random: it has neither prior, nor moments, nor budgets that are shares of one."
            )
        if self.learning_rates == "inherit" and self.start == RANDOM:
            raise ConfigurationError(f"{where} starts at random and has no learning rate to inherit.")
        if self.final_rate is not None and self.schedule != "rewarm":
            raise ConfigurationError(
                f"{where}: final_rate = {self.final_rate!r} is what a 'rewarm' falls to; {self.schedule!r} has its own."
            )
        if self.plateau and self.searches:
            raise ConfigurationError(
                f"{where} is a plateau, whose loss is not annealed: no learning rate is chosen by it (PROTOCOL.md 3).\n"
                "  learning_rates: the name of an arm that anneals, whose rates it takes."
            )
        if not isinstance(self.learning_rates, str) and (
            len(set(self.learning_rates)) < 3 or any(not rate > 0 for rate in self.learning_rates)
        ):
            raise ConfigurationError(
                f"{where}: learning_rates = {list(self.learning_rates)}: three different ones at least, above 0, so that the best"
                " can be bracketed (PROTOCOL.md 4); or the name of the arm whose rates it takes."
            )

    @property
    def sources(self) -> set[str]:
        """All that it reads."""
        return {*self.blend, *(self.then or {})}

    @property
    def counted(self) -> float:
        """The share of its tokens that `tokens` counts."""
        replays = self.counts == "target" and self.then is None and self.target in self.blend
        return self.blend[self.target] if replays else 1.0

    @property
    def replay(self) -> float:
        """The share of tokens that come on top of those that are counted."""
        return 1.0 - self.counted

    @property
    def searches(self) -> bool:
        """Whether learning rates are tried for it."""
        return not isinstance(self.learning_rates, str)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """What the study was made to find out, named before its first run: that `better` is below `worse`.

    Attributes:
        size, tokens: the point of both arms that is compared (tokens: one of both arms' budgets).
        prior: which budget of the arm that they continue, where there are several.
        worse_tokens: the budget of `worse`, where it is another than `tokens` (equal compute, trunk included).
        effect: the smallest difference worth finding, in the metric's unit: what the seeds are counted for.
        metric: "bits_per_byte" or "loss" (nats per token) on the arms' target.
    """

    better: str
    worse: str
    size: str
    tokens: float
    effect: float
    metric: str = "bits_per_byte"
    prior: float | None = None
    worse_tokens: float | None = None

    def __post_init__(self):
        if self.metric not in METRICS:
            raise ConfigurationError(f"Contrast.metric = {self.metric!r}: it is {' or '.join(METRICS)}.")
        if not self.effect > 0 or self.better == self.worse:
            raise ConfigurationError(
                f"the contrast of {self.better!r} with {self.worse!r} by {self.effect!r}: two arms, and an effect above 0."
            )

    def picks(self, arm: str, prior: int | None, tokens: int) -> bool:
        """Whether this is the point of `arm` that is compared."""
        budget = self.tokens if arm == self.better or self.worse_tokens is None else self.worse_tokens
        return tokens == budget and (self.prior is None or prior in (None, self.prior))


def _is_budget(budget: float | str) -> bool:
    if isinstance(budget, str):
        return _SHARE.fullmatch(budget) is not None and float(budget[:-1]) > 0
    return not isinstance(budget, bool) and budget > 0


def share_of(budget: str) -> float:
    """0.2 of "20%"."""
    return float(budget[:-1]) / 100
