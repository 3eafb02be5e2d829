"""Policies: each chooses from a corpus, by a rule of its own, and says of every unit what became of it. One takes another's place.

Here are those that know nothing of the text, and the one that puts several in a row; embedded_policies.py has those that compare
embeddings, deduplication.py and domain_filter.py the others.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.selection.budgets import Budget, smallest
from cptjax.selection.controls import length_matched, random_scores
from cptjax.selection.corpus import Corpus
from cptjax.selection.embedders import Embedder
from cptjax.selection.output import MANIFEST
from cptjax.selection.selected import Reason, Selection, after, selection_of


class Policy(Protocol):
    """What chooses."""

    def choose(self, corpus: Corpus) -> Selection:
        """What becomes of each unit of the corpus."""

    def made_of(self) -> dict[str, Any]:
        """What the choice depends on beside the corpus, as JSON."""


@dataclasses.dataclass(frozen=True)
class Random:
    """Units drawn at random: what any other policy has to beat."""

    budget: Budget
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "seed", whole_number(self.seed, "SEED"))

    @property
    def share(self) -> float | None:
        """What is kept."""
        return self.budget.share

    def made_of(self) -> dict[str, Any]:
        return {"Random": dataclasses.asdict(self)}

    def choose(self, corpus: Corpus) -> Selection:
        check_budget(self.budget, corpus)
        scores = random_scores(len(corpus), self.seed)
        kept = smallest(scores, corpus.sizes, self.budget)
        return selection_of(kept, Reason("random", "not among those drawn"), score=scores)


@dataclasses.dataclass(frozen=True)
class LengthMatched:
    """Units drawn at random with the lengths of another selection of the same units: what tells preference from length.

    Attributes:
        of: the folder of that selection. strata: into how many parts of like length the corpus is cut.
    """

    of: str
    seed: int = 0
    strata: int = 20

    def __post_init__(self):
        for name, least in (("seed", 0), ("strata", 1)):
            object.__setattr__(self, name, whole_number(getattr(self, name), name.upper(), least))

    def made_of(self) -> dict[str, Any]:
        return {"LengthMatched": dataclasses.asdict(self)}

    def choose(self, corpus: Corpus) -> Selection:
        path = epath.Path(self.of).expanduser() / MANIFEST
        if not path.exists():
            raise ConfigurationError(f"SELECTION = '{self.of}' is no folder of a selection: there is no {path}.")
        with path.open("r") as lines:
            theirs = [json.loads(line) for line in lines]
        ids = [corpus.units.id(unit) for unit in corpus.chosen.tolist()]
        decided = {line["id"]: line["kept"] for line in theirs}
        # What is held out, or gone by an earlier policy, stands in its manifest too; nothing that it keeps may be missing here.
        if not decided.keys() >= set(ids) or sum(decided[each] for each in ids) != sum(decided.values()):
            raise ConfigurationError(
                f"SELECTION = '{self.of}' is of other units than these ({len(theirs):,} there, {len(ids):,} here).\n"
                "  Give INPUT, UNIT, PASSAGE_TOKENS and TOKENIZER as they were there (selection.json says)."
            )
        chosen = np.array([decided[each] for each in ids], bool)
        kept = length_matched(corpus.sizes, chosen, self.seed, self.strata)
        both = int((kept & chosen).sum())
        found = [
            f"as many units of each length as in {self.of}; {both:,} of its {int(chosen.sum()):,} are drawn here too"
        ]
        return selection_of(kept, Reason("length_matched", "not among those drawn"), found=found)


@dataclasses.dataclass(frozen=True)
class Chain:
    """Policies one after another, each choosing from what those before it have left. Shares are of that."""

    policies: Sequence[Policy]

    def __post_init__(self):
        if not self.policies:
            raise ConfigurationError("a chain of policies has at least one.")

    def made_of(self) -> dict[str, Any]:
        return {"Chain": [each.made_of() for each in self.policies]}

    def choose(self, corpus: Corpus) -> Selection:
        chosen = None
        for n, policy in enumerate(self.policies):
            left = np.ones(len(corpus), bool) if chosen is None else chosen.kept
            stages = corpus.stages.below(f"{n}_{type(policy).__name__}")
            found = policy.choose(corpus.left(left, stages))
            chosen = found if chosen is None else after(chosen, found)
        return chosen


@dataclasses.dataclass(frozen=True)
class Drawn:
    """So many tokens of the corpus, drawn at random, for a policy that keeps a share of them; all of them must be there."""

    tokens: int
    seed: int = 0

    def made_of(self) -> dict[str, Any]:
        return {"Drawn": dataclasses.asdict(self)}

    def choose(self, corpus: Corpus) -> Selection:
        if (there := int(corpus.sizes.sum())) < self.tokens:
            raise ConfigurationError(
                f"REGIME = 'fixed_compute': TRAIN_TOKENS over the share that is kept are {self.tokens:,} tokens to choose from;"
                f" there are {there:,}.\n  Lower TRAIN_TOKENS, raise the share, give more text, or take 'fixed_data', and epochs."
            )
        kept = smallest(random_scores(len(corpus), self.seed), corpus.sizes, Budget(amount=self.tokens))
        reason = Reason("not_drawn", "beyond the tokens that are chosen from")
        return selection_of(
            kept, reason, found=[f"{int(kept.sum()):,} units drawn to choose from, {self.tokens:,} tokens"]
        )


def check_budget(budget: Budget, corpus: Corpus) -> None:
    """Refuses a budget in tokens where nothing counts them.

    Raises:
        ConfigurationError: says what to set.
    """
    if budget.of == "tokens" and not corpus.in_tokens:
        raise ConfigurationError(
            "a budget of tokens needs to know what a token is: set TOKENIZER to a tokenizer's folder, or a checkpoint's;\n"
            '  or give it in units (OF = "units": documents, or passages).'
        )


def embedder_of(policy: Policy) -> Embedder | None:
    """What embeds units for a policy, or for one in a chain; None where nothing does."""
    if isinstance(policy, Chain):
        return next(filter(None, map(embedder_of, policy.policies)), None)
    found = getattr(policy, "embedder", None)
    return found if isinstance(found, Embedder) else None
