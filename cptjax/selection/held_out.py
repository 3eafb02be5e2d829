"""The documents that an evaluation of the corpus holds out: not chosen from, to measure by them what the choice is worth."""

import dataclasses
from typing import Any

import numpy as np

from cptjax.data.scan import scan
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.selection.corpus import Corpus
from cptjax.selection.policies import Chain, Policy
from cptjax.selection.selected import Reason, Selection, selection_of


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Leaves out the documents that runs and evaluations hold out of this corpus under the same settings (data/splits.py).

    Whole documents, and whole groups of near-duplicates. All arms of a study then share one validation set (PROTOCOL.md 6):
    the job `evaluate` with the corpus among its SOURCES, and these settings.
    """

    split: SplitSettings
    tokenizer: Tokenizer

    def made_of(self) -> dict[str, Any]:
        return {"HeldOut": {**dataclasses.asdict(self.split), "tokenizer": self.tokenizer.fingerprint}}

    def choose(self, corpus: Corpus) -> Selection:
        def documents() -> dict[str, np.ndarray]:
            return {"held_out": scan(corpus.units.source, self.tokenizer, self.split).held_out}

        away = corpus.stages.keep("held_out", documents)["held_out"]
        kept = ~away[corpus.units.document[corpus.chosen]]
        found = f"held out: {int(away.sum()):,} of {len(away):,} documents, with {int((~kept).sum()):,} units"
        return selection_of(kept, Reason("held_out", "held out, to measure what is trained on the rest"), found=[found])


def without_held_out(policy: Policy, split: SplitSettings | None, tokenizer: Tokenizer | None) -> Policy:
    """The policy behind `HeldOut`, where there is a fraction to hold out.

    Raises:
        ConfigurationError: nothing counts the tokens that are held out.
    """
    if split is None or not split.fraction:
        return policy
    if tokenizer is None:
        raise ConfigurationError(
            f"VALIDATION_FRACTION = {split.fraction:g} needs to know what a token is: set TOKENIZER to that of the runs and the "
            "evaluation."
        )
    return Chain([HeldOut(split, tokenizer), *(policy.policies if isinstance(policy, Chain) else [policy])])
