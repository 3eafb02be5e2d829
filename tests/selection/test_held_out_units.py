"""What evaluations hold out is not chosen from: the same documents, whole, behind any policy."""

import dataclasses

import numpy as np
import pytest
from corpora import corpus_of, topical

from cptjax.data.scan import scan
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.units import make_units
from cptjax.errors import ConfigurationError
from cptjax.selection.budgets import Budget
from cptjax.selection.held_out import HeldOut, without_held_out
from cptjax.selection.policies import Chain, Random

SPLIT = SplitSettings(0.3, 10**6)


def test_held_out_documents_and_their_near_copies_are_not_chosen_from(tmp_path, shared_data):
    generator = np.random.default_rng(2)
    texts = [" ".join(topical(generator, 4, 50, 30)) for _ in range(30)]
    texts[20:25] = [text + " more" for text in texts[:5]]
    tokenizer = open_tokenizer(str(shared_data / "stories260K"))
    whole = corpus_of(texts, tmp_path)
    units = make_units(whole.units.source, tokenizer, "passages", 32, tmp_path / "passages")
    corpus = dataclasses.replace(whole, units=units, chosen=np.arange(len(units)))
    chain = without_held_out(Random(Budget(share=0.5)), SPLIT, tokenizer)
    found = chain.choose(corpus)
    away = scan(units.source, tokenizer, SPLIT).held_out
    assert 3 < away.sum() < 20 and np.array_equal(away[:5], away[20:25])  # a near-copy goes with its original
    held_out = found.reason == 0
    assert found.reasons[0].stage == "held_out" and np.array_equal(held_out, away[units.document])
    left = units.sizes[~held_out].sum()
    assert 0 < 0.5 * left - units.sizes[found.kept].sum() < units.sizes.max() and not (found.kept & held_out).any()


def test_without_a_fraction_it_is_the_policy_and_without_a_tokenizer_it_is_refused():
    policy = Random(Budget(share=0.5))
    assert without_held_out(policy, None, None) is policy
    assert without_held_out(policy, SplitSettings(0.0), None) is policy
    with pytest.raises(ConfigurationError, match="VALIDATION_FRACTION = 0.3 .* set TOKENIZER"):
        without_held_out(policy, SPLIT, None)
    before = without_held_out(Chain([policy, policy]), SPLIT, object())
    assert [type(each) for each in before.policies] == [HeldOut, Random, Random]
