"""Policies one in another's place: what each says of every unit, chains, regimes, and the stages that are found done."""

import dataclasses

import numpy as np
import pytest
from corpora import corpus_of, topical

from cptjax.errors import ConfigurationError
from cptjax.selection.budgets import Budget
from cptjax.selection.d4 import D4Settings, d4
from cptjax.selection.deduplication import NearDuplicates
from cptjax.selection.domain_filter import DomainFilter
from cptjax.selection.embedded_policies import D4, Nearest, SemDeDup
from cptjax.selection.embedders import Embedder
from cptjax.selection.output import manifest_line
from cptjax.selection.policies import Chain, Drawn, LengthMatched, Random, embedder_of
from cptjax.selection.regimes import under

pytest.importorskip("sklearn", reason="needs the `selection` extra")

EMBEDDER = Embedder("tf-idf", dimensions=12)
SETTINGS = D4Settings(0.4, 0.75, 4, "units", iterations=10, start="random")


@pytest.fixture(scope="module")
def texts():
    generator = np.random.default_rng(5)
    found = [" ".join(topical(generator, 4, 50, 30)) for _ in range(48)]
    found[10], found[30] = found[3], found[4]
    return found


@pytest.fixture
def corpus(texts, tmp_path):
    return corpus_of(texts, tmp_path)


def test_a_chain_says_of_every_unit_what_the_last_to_see_it_says(corpus):
    found = Chain([NearDuplicates(), D4(EMBEDDER, SETTINGS)]).choose(corpus)
    left = NearDuplicates().choose(corpus.left(np.ones(48, bool), corpus.stages.below("again"))).kept
    assert np.flatnonzero(~left).tolist() == [10, 30] and found.instead[[10, 30]].tolist() == [3, 4]
    alone = corpus_of([t for t, keep in zip(corpus.texts(), left, strict=True) if keep], corpus.stages.folder / "alone")
    points = alone.vectors(EMBEDDER)
    expected = d4(points, alone.sizes, SETTINGS)
    assert np.array_equal(found.kept[left], expected.kept)
    assert found.kept.sum() == round(0.4 * 46)
    stages = [reason.stage for reason in found.reasons]
    assert stages == ["near_duplicates", "semantic_duplicates", "prototypes"]
    for unit in range(48):
        line = manifest_line(corpus.units, found, unit)
        assert line["kept"] == (line["stage"] is None) == (line["reason"] is None)
        if line["stage"] == "semantic_duplicates":
            assert f"'d{found.instead[unit]}'" in line["reason"] and found.instead[unit] != unit
            assert line["cluster"] == found.cluster[unit] and -1 <= line["score"] <= 1
    assert [each.title for each in found.evidence] == ["Near-duplicates", "D4"]


def test_two_parts_of_one_class_are_told_apart(corpus):
    """Each part's seconds stand under its number; a chain's in a chain too."""
    prefix = NearDuplicates(0.9)
    Chain([prefix, Chain([Random(Budget(share=0.9, of="units")), prefix]), prefix]).choose(corpus)
    found = corpus.stages.seconds_of_all()
    names = ["0_NearDuplicates", "1_Chain: 1_NearDuplicates", "2_NearDuplicates"]
    assert list(found) == [f"{name}: near_duplicates" for name in names]
    eleventh = corpus.stages.below("10_NearDuplicates")
    eleventh.took("near_duplicates", 1.0)
    assert list(corpus.stages.seconds_of_all())[-1] == "10_NearDuplicates: near_duplicates"


def test_what_is_done_is_not_done_again(corpus, monkeypatch):
    policy = D4(EMBEDDER, SETTINGS)
    first = policy.choose(corpus)
    monkeypatch.setattr("cptjax.selection.d4.kmeans", None)
    monkeypatch.setattr("cptjax.selection.corpus.tfidf_vectors", None)
    again = policy.choose(corpus)
    assert np.array_equal(first.kept, again.kept) and np.array_equal(first.score, again.score)


def test_semdedup_by_share_by_epsilon_and_greedily(corpus):
    told = {"clusters": 3, "iterations": 5, "of": "units"}
    by_share = SemDeDup(EMBEDDER, share=0.5, **told).choose(corpus)
    assert by_share.kept.sum() == 24
    edge = by_share.score[by_share.kept].max()
    epsilon = float(1 - edge - 1e-6)  # float32 rounds
    by_epsilon = SemDeDup(EMBEDDER, epsilon=epsilon, **told).choose(corpus)
    assert (by_epsilon.kept >= by_share.kept).all() and by_epsilon.score[by_epsilon.kept].max() <= edge + 2e-6
    greedy = SemDeDup(EMBEDDER, epsilon=epsilon, rule="greedy", **told).choose(corpus)
    assert (greedy.kept >= by_epsilon.kept).all()  # what only what stays may block is blocked by less
    wider = dataclasses.replace(SemDeDup(EMBEDDER, share=0.5, **told), neighbours=2)
    fresh = corpus.left(np.ones(48, bool), corpus.stages.below("refused"))
    with pytest.raises(ConfigurationError, match="CLUSTERS = 99 of 48 units"):
        dataclasses.replace(wider, clusters=99).choose(fresh)
    assert not (fresh.stages.folder / "embeddings").exists()  # refused before anything was embedded
    for wrong in ({}, {"share": 0.5, "epsilon": 0.1}, {"share": 0.5, "rule": "greedy"}, {"epsilon": 3}):
        with pytest.raises(ConfigurationError):
            SemDeDup(EMBEDDER, **wrong)


def test_what_is_nearest_to_the_targets_is_kept(corpus, texts, tmp_path):
    (tmp_path / "targets.txt").write_text(texts[7])
    found = Nearest(EMBEDDER, str(tmp_path / "targets.txt"), Budget(amount=1, of="units")).choose(corpus)
    assert np.flatnonzero(found.kept).tolist() == [7] and found.score[7] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "names", "least"),
    [
        (D4Settings(0.5), ["clusters", "iterations", "seed", "rows", "neighbours"], 0),
        (SemDeDup(EMBEDDER, share=0.5), ["clusters", "iterations", "seed", "neighbours"], 0),
        (LengthMatched("folder"), ["strata", "seed"], 0),
        (Random(Budget(share=0.5)), ["seed"], 0),
        (Budget(amount=3), ["amount"], 0),
        (EMBEDDER, ["dimensions", "rows", "most_tokens", "seed", "step"], 0),
        (NearDuplicates(method="minhash"), ["permutations"], 1),
        (DomainFilter(seeds="folder", threshold=0.5), ["negatives", "audit", "seed"], 0),
    ],
    ids=lambda each: type(each).__name__,
)
def test_whole_numbers_are_written_as_people_write_them(settings, names, least):
    """2e2 is 200, an int, so that ranges and records have it so; 2.5 and what is below the least are refused by name."""
    for name in names:
        told = dataclasses.replace(settings, **{name: 2e2})
        assert getattr(told, name) == 200 and isinstance(getattr(told, name), int)
        for wrong in (2.5, least - 1, "2"):
            with pytest.raises(ConfigurationError, match=f"(?i){name}"):
                dataclasses.replace(settings, **{name: wrong})


def test_fixed_compute_draws_what_the_share_is_of():
    random = Random(Budget(share=0.25))
    assert under("fixed_data", random, None) is random
    assert under("fixed_compute", random, 1000).policies == [Drawn(4000), random]
    chain = Chain([NearDuplicates(), D4(EMBEDDER, dataclasses.replace(SETTINGS, of="tokens"))])
    assert [type(each) for each in under("fixed_compute", chain, 1000).policies] == [NearDuplicates, Drawn, D4]
    assert embedder_of(chain) is EMBEDDER and embedder_of(random) is None
    for wrong in ((random, None), (NearDuplicates(), 10), (D4(EMBEDDER, SETTINGS), 10)):
        with pytest.raises(ConfigurationError, match="fixed_compute"):
            under("fixed_compute", *wrong)
    with pytest.raises(ConfigurationError, match="REGIME = 'both'"):
        under("both", random, None)


def test_tokens_that_are_not_counted_or_not_there_are_refused(corpus):
    with pytest.raises(ConfigurationError, match="set TOKENIZER"):
        Random(Budget(share=0.5)).choose(corpus)
    with pytest.raises(ConfigurationError, match="Lower TRAIN_TOKENS"):
        Drawn(10**9).choose(corpus)
