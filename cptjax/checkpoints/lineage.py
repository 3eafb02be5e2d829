"""A checkpoint's ancestry: what its weights have seen since the base, stage by stage, and at which learning rates.

Every checkpoint carries one `Lineage` in its metadata, and reports, laws and learning rates that are "inherited" read
nothing else. Plain data; it comes out of JSON exactly as it went in.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cptjax.errors import CptjaxError

VERSION = 1
ANNEALED_AT = 0.1  # final / peak at or below which a run's loss may be compared with others
_ROUNDING = 1e-6  # rates are float32: a decay to "peak/10" may end a hair above it
VERBS = ("random", "initialize", "branch")  # how a run starts; `resume` goes on with the same run and its record


@dataclasses.dataclass(frozen=True)
class Parameters:
    """How many parameters the model has, under each definition a scaling law may use."""

    total: int
    non_embedding: int
    active: int


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the weights come from before any run of ours.

    Attributes:
        kind: "hugging_face" or "random".
        path: the Hugging Face folder as it was named; for "random", "".
        identity: sha256 over the folder's config and tensors; for "random", the seed that drew the weights.
        parameters: counts of the model.
        tokens: tokens the base had been trained on, where somebody said so (a folder does not tell), else None.
    """

    kind: str
    path: str
    identity: str
    parameters: Parameters
    tokens: int | None = None

    def __post_init__(self):
        if self.kind not in ("hugging_face", "random"):
            raise ValueError(f"an origin is 'hugging_face' or 'random', not {self.kind!r}")


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """One stage of a run, up to the checkpoint.

    Attributes:
        name: the stage's.
        tokens: target tokens read.
        bytes: UTF-8 bytes of raw text they stand for.
        flops: counted training FLOPs (matrix products, LM head and attention included; not 6ND).
        weights: token weight of each source, as given.
    """

    name: str
    tokens: int
    bytes: int
    flops: int
    weights: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Exposure:
    """How much of one source was read: `epochs` is rows read over rows it holds; the fingerprint says which rows.

    `rows` is how far the run is in the source's order; rows of steps that were passed over count there, and nowhere else.
    """

    fingerprint: str
    rows: int
    tokens: int
    epochs: float

    def __add__(self, other: "Exposure") -> "Exposure":
        if other.fingerprint != self.fingerprint:
            raise ValueError("exposures of different rows do not add up")
        return Exposure(
            self.fingerprint, self.rows + other.rows, self.tokens + other.tokens, self.epochs + other.epochs
        )


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """The learning rate of a run up to the checkpoint.

    Attributes:
        peak: the highest rate *reached so far* (not planned: a checkpoint within its warm-up is not an annealed one).
        final: the rate at the checkpoint.
        schedule: the schedule in words, as printed when the run started.
        history: (tokens read in this run, rate) at the points worth drawing.
    """

    peak: float
    final: float
    schedule: str
    history: tuple[tuple[int, float], ...] = ()

    @property
    def annealed(self) -> bool:
        """Whether the rate has come down to a tenth of its peak: only then is a loss compared (PROTOCOL 3)."""
        return self.peak > 0 and self.final <= ANNEALED_AT * self.peak * (1 + _ROUNDING)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One run up to the checkpoint.

    Attributes:
        verb: how it started, one of `VERBS`.
        run: its folder.
        commit: the git commit of the code, or None outside a checkout.
        stages: what was read, in order; a stage that has not begun is absent.
        exposures: by source name, this run's own (`Lineage.exposures` adds those carried over).
        learning_rate: its history.
        seed: of the data order and whatever else the run drew.
        started_from: the checkpoint or folder it started from, as named; "" for random weights.
        longer_context: the fields of the model's config that this run changed to reach further, with their new values; None
            where it changed none, and then not written.
    """

    verb: str
    run: str
    commit: str | None
    stages: tuple[StageRecord, ...]
    exposures: Mapping[str, Exposure]
    learning_rate: LearningRate
    seed: int
    started_from: str
    longer_context: Mapping[str, Any] | None = None

    def __post_init__(self):
        if self.verb not in VERBS:
            raise ValueError(f"a run starts by one of {VERBS}, not {self.verb!r}")

    @property
    def annealed(self) -> bool:
        return self.learning_rate.annealed


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The base and every run since, oldest first; the last is the run that saved the checkpoint."""

    origin: Origin
    runs: tuple[RunRecord, ...] = ()

    def then(self, record: RunRecord) -> "Lineage":
        """This ancestry with one more run; at every save a run calls it on the ancestry that it started with."""
        return dataclasses.replace(self, runs=(*self.runs, record))

    @property
    def ancestors(self) -> "Lineage":
        """The ancestry without the last run: what a resumed run started with."""
        return dataclasses.replace(self, runs=self.runs[:-1])

    @property
    def tokens(self) -> int:
        """Target tokens trained on since the base, over all runs."""
        return sum(stage.tokens for run in self.runs for stage in run.stages)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of raw text trained on since the base."""
        return sum(stage.bytes for run in self.runs for stage in run.stages)

    @property
    def flops(self) -> int:
        """Counted training FLOPs since the base."""
        return sum(stage.flops for run in self.runs for stage in run.stages)

    @property
    def tokens_per_parameter(self) -> float:
        """Tokens trained on, the base's own included where they are known, for each parameter of the model."""
        return (self.tokens + (self.origin.tokens or 0)) / self.origin.parameters.total

    @property
    def annealed(self) -> bool | None:
        """Whether the last run is annealed; None for a base that no run of ours has touched."""
        return self.runs[-1].annealed if self.runs else None

    def final_learning_rate(self) -> float | None:
        """The learning rate the weights were last trained at; None for a Hugging Face folder, which does not tell."""
        return self.runs[-1].learning_rate.final if self.runs else None

    def peak_learning_rate(self) -> float | None:
        """The highest rate of the last run; None for a Hugging Face folder."""
        return self.runs[-1].learning_rate.peak if self.runs else None

    def exposures(self) -> dict[str, Exposure]:
        """Exposures by source, summed back over `branch` (a run that starts by `initialize` begins to count anew).

        Other rows that were read under the same name are kept apart, as "name@" and the start of their fingerprint.
        """
        total: dict[str, Exposure] = {}
        for run in reversed(self.runs):
            for name, exposure in run.exposures.items():
                if name in total and total[name].fingerprint != exposure.fingerprint:
                    name = f"{name}@{exposure.fingerprint[:12]}"
                total[name] = total[name] + exposure if name in total else exposure
            if run.verb != "branch":
                break
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists for `json.dumps`; `annealed` and the totals are written out for other readers."""
        content = dataclasses.asdict(self)
        for record, run in zip(content["runs"], self.runs, strict=True):
            record["annealed"] = run.annealed
            if run.longer_context is None:
                del record["longer_context"]
        totals = {"tokens": self.tokens, "bytes": self.bytes, "flops": self.flops}
        return {"version": VERSION, **content, "totals": {**totals, "tokens_per_parameter": self.tokens_per_parameter}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Lineage":
        """The lineage that `to_json` wrote.

        Raises:
            CptjaxError: it was written by another version, or is not a lineage.
        """
        if not isinstance(content, Mapping) or content.get("version") != VERSION:
            found = content.get("version") if isinstance(content, Mapping) else content
            raise CptjaxError(f"This lineage has version {found!r}; this cptjax reads version {VERSION}.")
        try:
            origin = dict(content["origin"])
            origin["parameters"] = Parameters(**origin["parameters"])
            return cls(Origin(**origin), tuple(_run(run) for run in content["runs"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CptjaxError(f"This lineage is incomplete or damaged: {type(error).__name__}: {error}") from error


def _run(content: Mapping[str, Any]) -> RunRecord:
    fields = {key: value for key, value in content.items() if key != "annealed"}  # derived, never believed
    rate = dict(fields["learning_rate"])
    rate["history"] = tuple((int(tokens), float(value)) for tokens, value in rate["history"])
    fields["learning_rate"] = LearningRate(**rate)
    fields["stages"] = tuple(StageRecord(**stage) for stage in fields["stages"])
    fields["exposures"] = {name: Exposure(**exposure) for name, exposure in fields["exposures"].items()}
    return RunRecord(**fields)
