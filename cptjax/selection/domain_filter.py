"""A domain out of a general corpus: a classifier learned from texts of the domain, measured on texts that it did not see.

Positives are the seed documents; negatives are named, or drawn from the corpus itself, where some are of the domain unnoticed
(drawn_negatives.py): what is drawn is scored by a classifier that was not trained on it, and p is then not corrected.
What is held out is held out by groups of near-duplicates: a copy of a training text would flatter the measurement.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.data.sources import Where, as_plain, content_identity, documents, find_source
from cptjax.errors import ConfigurationError
from cptjax.selection.budgets import Budget, smallest
from cptjax.selection.corpus import Corpus
from cptjax.selection.domain_learners import over_texts, over_vectors
from cptjax.selection.domain_measure import Measured, curve, measure, share_said
from cptjax.selection.drawn_negatives import drawn_units, places, scored_by_the_other_half
from cptjax.selection.embedders import Embedder
from cptjax.selection.near_duplicates import groups
from cptjax.selection.policies import check_budget
from cptjax.selection.selected import Evidence, Reason, Selection, selection_of
from cptjax.selection.shards import Shards
from cptjax.selection.shingles import word_shingles
from cptjax.selection.text_classifier import TextClassifier

SAME = 0.7  # Jaccard similarity of 5-word shingles from which two texts are held out, or trained on, together
_ELSEWHERE = ("embedder", "runner", "runner_options", "scratch")  # told by itself; where the work is done
_LEAST = 20  # texts of either kind, fewer of which teach nothing


@dataclasses.dataclass(frozen=True)
class DomainFilter:
    """Keeps what a classifier takes for the domain.

    Attributes:
        seeds: a source of texts of the domain. others: one of texts that are not; None: so many texts of the corpus, drawn.
        label, value: instead of `seeds`: the field of the corpus's records that labels some, and what it says of the domain's;
            those labelled otherwise are the negatives, those without it are what is to be judged.
        threshold: of the classifier's probability; or `tokens`, so many, of the likeliest; where both are given, `tokens`.
        negatives: how many texts of the corpus are drawn where `others` names none; at most half of it.
        held_out: the share of the labelled texts that measures.
        ngrams: lengths of the character n-grams that are hashed. embedder: vectors of units in place of them.
        audit: units drawn for the report, to be read by people, on either side of the threshold.
        runner: of Apache Beam, to score n-grams on; None: this process. runner_options, scratch: as `through_beam` has them.
    """

    seeds: Where | None = None
    others: Where | None = None
    label: str | None = None
    value: str | None = None
    threshold: float | None = None
    tokens: float | None = None
    negatives: int = 5000
    held_out: float = 0.2
    ngrams: tuple[int, int] = (3, 5)
    embedder: Embedder | None = None
    audit: int = 20
    runner: str | None = None
    runner_options: Sequence[str] = ()
    scratch: str | None = None
    seed: int = 0

    def __post_init__(self):
        if (self.seeds is None) == (self.label is None) or (self.label is None) != (self.value is None):
            raise ConfigurationError("a domain filter learns from SEEDS, or from LABEL and VALUE: one of the two.")
        if self.threshold is None and self.tokens is None:
            raise ConfigurationError("a domain filter keeps by THRESHOLD or by KEEP_TOKENS: one of the two is needed.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigurationError(f"THRESHOLD = {self.threshold!r}: a probability between 0 and 1.")
        if not 0 < self.held_out < 1:
            raise ConfigurationError(f"HELD_OUT = {self.held_out!r} must be between 0 and 1.")
        for name, least in (("negatives", 1), ("audit", 0), ("seed", 0)):
            object.__setattr__(self, name, whole_number(getattr(self, name), name.upper(), least))

    @property
    def draws(self) -> bool:
        """Whether the negatives are drawn from the corpus that is judged."""
        return self.label is None and self.others is None

    @property
    def budget(self) -> Budget | None:
        """The tokens that are kept; None where the threshold says."""
        return None if self.tokens is None else Budget(amount=whole_number(self.tokens, "KEEP_TOKENS"))

    def made_of(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _ELSEWHERE}
        for name in ("seeds", "others"):
            if fields[name] is not None:
                where = fields[name]
                files = content_identity(find_source(name.upper(), where))
                fields[name] = {"where": as_plain(where), "files": files}
        if self.draws:
            fields["drawn_are_scored_by"] = "the other half"
        return {"DomainFilter": {**fields, "embedder": self.embedder.made_of() if self.embedder else None}}

    def choose(self, corpus: Corpus) -> Selection:
        if self.budget is not None:
            check_budget(self.budget, corpus)
        found = corpus.stages.keep("domain", lambda: self._scores(corpus), together=self.embedder is not None)
        scores = found["scores"]
        measured = Measured(
            *(found[name] for name in ("thresholds", "precision", "recall", "false_positives")),
            *found["counts"],
            drawn=self.draws,
        )
        kept = scores >= self.threshold if self.budget is None else smallest(-scores, corpus.sizes, self.budget)
        edge = self.threshold if self.budget is None else float(scores[kept].min(initial=1.0))
        precision, recall, _ = measured.at(edge)
        said = [
            f"classifier: of {measured.positives:,} held-out texts of the domain and {measured.negatives:,} others it tells, at "
            f"{edge:.3g}, precision {precision:.3f} (at equal shares) and recall {recall:.3f}",
            share_said(scores, corpus.sizes, measured, edge, "tokens" if corpus.in_tokens else "bytes"),
        ]
        if self.draws:
            said.append(self._of_the_draw(len(corpus)))
        evidence = Evidence(
            "Domain filter",
            np.arange(len(corpus)),
            sentences=tuple(said),
            heading="What a threshold would keep, measured on held-out texts"
            + (": precision is at least this, and of other texts at most this is taken" if self.draws else ""),
            rows=curve(measured, scores, corpus.sizes),
            curves=tuple(
                (name.replace("_", " "), measured.thresholds[::9], getattr(measured, name)[::9])
                for name in ("precision", "recall", "false_positives")
            ),
            samples=self._audit(scores, kept),
        )
        reason = Reason("domain", "the classifier does not take it for the domain")
        return selection_of(kept, reason, score=scores, found=said, evidence=[evidence])

    def _of_the_draw(self, units: int) -> str:
        drawn = int(drawn_units(units, self.negatives, self.seed).sum())
        fewer = f" (half of it; NEGATIVES = {self.negatives:,} are more)" if drawn < self.negatives else ""
        return (
            f"the others are {drawn:,} units of this corpus{fewer}, of which some are of the domain: precision is a lower bound,"
            " the share of other texts taken an upper one. Those that train are scored by a classifier that was not trained on them"
        )

    def _scores(self, corpus: Corpus) -> Mapping[str, np.ndarray]:
        """Trains, measures, and scores every unit."""
        texts, positive = self._labelled(corpus)
        group = groups([word_shingles(text) for text in texts], SAME)
        train = self._split(group, positive)
        if self.embedder is None:
            learner = over_texts(texts, positive, self.ngrams, self.seed, lambda model: self._judged(model, corpus))
        else:
            learner = over_vectors(*self._vectors(corpus), positive, len(corpus))
        model = learner.fit(train)
        measured = measure(learner.score(model, ~train), positive[~train])
        scores = learner.every(model)
        if self.draws:
            drawn = np.flatnonzero(drawn_units(len(corpus), self.negatives, self.seed))
            others = scored_by_the_other_half(learner.fit, learner.score, positive, train, group, self.seed)[
                -len(drawn) :
            ]
            scores[drawn] = np.where(np.isnan(others), scores[drawn], others)
        return {"scores": scores, **measured}

    def _judged(self, model: TextClassifier, corpus: Corpus) -> np.ndarray:
        """The probability of every unit, by the n-grams of its text."""
        if self.runner is None:
            return model.scores(corpus.texts())
        from cptjax.selection.beam_scoring import score_on_beam

        return score_on_beam(model, corpus.texts(), self.runner, self.runner_options, self.scratch)

    def _vectors(self, corpus: Corpus) -> tuple[Shards, np.ndarray]:
        """The embeddings of the corpus's units and, behind them, of the sources' texts; where those of the labelled texts are."""
        sources = {"SEEDS": self.seeds, "OTHERS": self.others}
        also = [corpus.beside(name, where, self.embedder) for name, where in sources.items() if where is not None]
        points = corpus.vectors(self.embedder, *also)
        if self.label is not None:
            return points, np.flatnonzero([each is not None for each in _labels(corpus, self.label)])
        beside = np.arange(len(corpus), len(points))
        if self.others is not None:
            return points, beside
        drawn = np.flatnonzero(drawn_units(len(corpus), self.negatives, self.seed))
        return points, np.concatenate([beside, drawn])

    def _labelled(self, corpus: Corpus) -> tuple[list[str], np.ndarray]:
        """The texts to learn from, and which are of the domain."""
        if self.label is not None:
            both = [
                (t, each)
                for t, each in zip(corpus.texts(), _labels(corpus, self.label), strict=True)
                if each is not None
            ]
            return [text for text, _ in both], np.array([each == self.value for _, each in both], bool)
        seeds = [document.text for document in documents(find_source("SEEDS", self.seeds))]
        if self.others is not None:
            others = [document.text for document in documents(find_source("OTHERS", self.others))]
        else:
            drawn = drawn_units(len(corpus), self.negatives, self.seed)
            others = list(itertools.compress(corpus.texts(), drawn.tolist()))
        return seeds + others, np.arange(len(seeds) + len(others)) < len(seeds)

    def _split(self, group: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """Which texts (bool) train: of each kind the share that is not held out, whole groups of near-duplicates."""
        if min(positive.sum(), (~positive).sum()) < _LEAST:
            raise ConfigurationError(
                f"there are {int(positive.sum()):,} texts of the domain and {int((~positive).sum()):,} others to learn from;"
                f" at least {_LEAST} of each are needed."
            )
        place = places(group, self.seed)
        train = np.ones(len(group), bool)
        for kind in (positive, ~positive):
            train[kind] = place[kind] >= np.quantile(place[kind], self.held_out)
        # A group with texts of both kinds is on one side.
        train = train[group]
        for kind in (positive, ~positive):
            if not train[kind].any() or train[kind].all():
                raise ConfigurationError("the labelled texts are copies of too few: nothing can be held out of them.")
        return train

    def _audit(self, scores: np.ndarray, kept: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
        """Units drawn for people to read: of what is kept, of what is not, and nearest to the border."""
        generator = np.random.default_rng(self.seed)
        of = {"kept": np.flatnonzero(kept), "not kept": np.flatnonzero(~kept)}
        drawn = [
            (f"Drawn from what is {name}", generator.permutation(units)[: self.audit]) for name, units in of.items()
        ]
        edge = scores[kept].min(initial=1.0)
        return (*drawn, ("Nearest to the border", np.argsort(np.abs(scores - edge), kind="stable")[: self.audit]))


def _labels(corpus: Corpus, field: str) -> Iterator[str | None]:
    """What the field of each unit's record says, as text; None where it is missing."""
    wanted = np.zeros(len(corpus.units), bool)
    wanted[corpus.chosen] = True
    every: Iterable[Any] = (
        document.metadata.get(field) for document, units in corpus.units.with_documents() for _ in units
    )
    return (None if each is None else str(each) for each in itertools.compress(every, wanted.tolist()))
