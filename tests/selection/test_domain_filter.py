"""The domain filter: its measurement is counted by hand, its share p is the share, and what it keeps is the domain."""

import dataclasses
import json

import numpy as np
import pytest
from corpora import corpus_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection.domain_filter import DomainFilter
from cptjax.selection.domain_measure import Measured, curve, domain_share, measure
from cptjax.selection.drawn_negatives import drawn_units, scored_by_the_other_half
from cptjax.selection.embedders import Embedder
from cptjax.selection.text_classifier import train_classifier

pytest.importorskip("sklearn", reason="needs the `selection` extra")

LAW = "the court held that section of the statute applies and the appeal was dismissed by a judge".split()
SEA = "a little girl walked along the sea and found one red fish that sang to her in the morning".split()


def texts_of(words, count, seed):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.permutation(words)[:9]) + f" {i}" for i in range(count)]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40), st.integers(1, 999))
@settings(max_examples=30)
def test_precision_and_recall_are_counted(drawn, thousandth):
    scores, positive = np.array([each for each, _ in drawn]), np.array([each for _, each in drawn])
    if positive.all() or not positive.any():
        return
    found = Measured(
        *(measure(scores, positive)[name] for name in ("thresholds", "precision", "recall", "false_positives")), 0, 0
    )
    taken = scores >= thousandth / 1000
    recall, false = (taken & positive).sum() / positive.sum(), (taken & ~positive).sum() / (~positive).sum()
    precision = recall / (recall + false) if recall + false else 1.0
    assert found.at(thousandth / 1000) == pytest.approx((precision, recall, false))


def test_the_share_is_corrected_for_both_kinds_of_error():
    generator = np.random.default_rng(0)

    def scored(count, positive):
        of = generator.random(count) < positive
        return np.clip(generator.normal(np.where(of, 0.65, 0.4), 0.15), 0, 1), of

    scores, of = scored(20_000, 0.5)
    measured = measure(scores, of)
    measured = Measured(*(measured[name] for name in ("thresholds", "precision", "recall", "false_positives")), 0, 0)
    scores, of = scored(50_000, 0.1)
    taken, corrected = domain_share(scores, np.ones(50_000, int), measured, 0.5)
    assert abs(taken - of.mean()) > 0.1 and abs(corrected - of.mean()) < 0.01
    # Of others that are a sample of the corpus as much is taken as of it, so it would "correct" any p to 0.
    drawn = dataclasses.replace(measured, drawn=True)
    assert domain_share(scores, np.ones(50_000, int), drawn, 0.5) == (taken, None)
    assert [row[-1] for row in curve(drawn, scores, np.ones(50_000, int))[1:]] == ["–"] * 11
    nothing = dataclasses.replace(measured, recall=0 * measured.recall, false_positives=0 * measured.recall)
    assert domain_share(scores, np.ones(50_000, int), nothing, 0.5) == (taken, None)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """60 texts of the law among 240, and 50 seeds."""
    folder = tmp_path_factory.mktemp("domain")
    texts = texts_of(LAW, 60, 1) + texts_of(SEA, 180, 2)
    order = np.random.default_rng(3).permutation(240)
    fields = [{"topic": "law" if i < 60 else "sea"} if n < 120 else {} for n, i in enumerate(order)]
    seeds = folder / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts_of(LAW, 50, 4)))
    others = folder / "others.jsonl"
    others.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts_of(SEA, 50, 9)))
    return [texts[i] for i in order], order < 60, fields, str(seeds), str(others)


@pytest.mark.parametrize("embedder", [None, Embedder("tf-idf", dimensions=20)], ids=["n-grams", "embeddings"])
@pytest.mark.parametrize("how", ["seeds", "others", "labels"])
def test_the_domain_is_kept_and_measured(mixed, how, embedder, tmp_path):
    texts, law, fields, seeds, others = mixed
    corpus = corpus_of(texts, tmp_path, fields)
    learned = {"label": "topic", "value": "law"}
    if how != "labels":
        learned = {"seeds": seeds, "others": others if how == "others" else None}
    policy = DomainFilter(threshold=0.5, negatives=100, audit=4, embedder=embedder, **learned)
    found = policy.choose(corpus)
    assert np.mean(found.kept == law) > 0.95
    curve = found.evidence[0].rows
    assert curve[0][:3] == ("threshold", "precision", "recall") and len(curve) == 12
    p = corpus.sizes[law].sum() / corpus.sizes.sum()
    taken, corrected = found.found[1].split("(p): ")[1].split(" by what is taken, ")
    assert float(taken.split(" ")[0]) == pytest.approx(p, abs=0.02)
    if how == "seeds":  # the negatives are the corpus's: a quarter of them is of the domain
        assert corrected == "not corrected: the other texts were drawn from this corpus; name OTHERS"
        assert {row[-1] for row in curve[1:]} == {"–"} and "precision is a lower bound" in found.found[2]
    else:
        assert float(corrected.split(" ")[0]) == pytest.approx(p, abs=0.01) and len(found.found) == 2
    again = policy.choose(corpus)
    assert np.array_equal(again.score, found.score)


@pytest.mark.parametrize("embedder", [None, Embedder("random", dimensions=200)], ids=["n-grams", "embeddings"])
def test_units_drawn_as_negatives_are_not_remembered_as_such(tmp_path, embedder):
    """Each text has words of its own, by which a classifier could know it again: what is drawn is judged like what is not."""

    def with_own_words(words, count, seed):
        generator = np.random.default_rng(seed)
        own = generator.integers(26, size=(count, 40)) + ord("a")
        return [
            f"{text} {bytes(o.tolist()).decode()}" for text, o in zip(texts_of(words, count, seed), own, strict=True)
        ]

    law = np.random.default_rng(3).permutation(200) < 100
    texts = dict(
        zip([True, False], (iter(with_own_words(words, 100, n)) for n, words in enumerate((LAW, SEA))), strict=True)
    )
    corpus = corpus_of([next(texts[bool(of)]) for of in law], tmp_path)
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in with_own_words(LAW, 60, 4)))
    policy = DomainFilter(seeds=str(tmp_path / "seeds.jsonl"), threshold=0.5, embedder=embedder)
    found = policy.choose(corpus)
    drawn = drawn_units(200, policy.negatives, policy.seed)
    assert drawn.sum() == 100 and "100 units of this corpus (half of it; NEGATIVES = 5,000 are more)" in found.found[2]
    remembered = found.score[law & ~drawn].mean() - found.score[law & drawn].mean()
    assert abs(remembered) < 0.1, remembered


def test_each_half_of_a_draw_is_scored_without_it():
    group = np.array([0, 1, 2, 3, 4, 5, 6, 6, 8, 9])
    positive, train = np.arange(10) < 3, np.arange(10) != 5
    trained = []

    def score(model, chosen):
        trained.append((model, chosen))
        return np.full(chosen.sum(), len(trained))

    found = scored_by_the_other_half(np.copy, score, positive, train, group, 0)
    assert np.array_equal(np.isnan(found), positive | ~train) and found[6] == found[7]
    for model, chosen in trained:
        assert chosen.any() and not (model & chosen).any() and model[:3].all() and not model[5]
    with pytest.raises(ConfigurationError, match="name OTHERS"):
        scored_by_the_other_half(np.copy, score, positive, train, np.where(positive, group, 3), 0)


def test_a_trained_classifier_scores_one_text_as_many():
    texts = texts_of(LAW, 30, 5) + texts_of(SEA, 30, 6)
    model = train_classifier(texts, np.arange(60) < 30)
    np.testing.assert_allclose(model.scores(texts), [model.scores([text])[0] for text in texts], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "learns from SEEDS, or from LABEL"),
        ({"label": "topic"}, "LABEL and VALUE"),
        ({"seeds": "a"}, "THRESHOLD or by KEEP_TOKENS"),
        ({"seeds": "a", "threshold": 1.5}, "THRESHOLD = 1.5"),
        ({"seeds": "a", "threshold": 0.5, "held_out": 0}, "HELD_OUT = 0"),
    ],
)
def test_settings_that_say_nothing_are_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        DomainFilter(**wrong)


@pytest.mark.slow
def test_beam_scores_the_same():
    pytest.importorskip("apache_beam", reason="needs the `text` extra")
    from cptjax.selection.beam_scoring import score_on_beam

    texts = texts_of(LAW, 300, 7) + texts_of(SEA, 300, 8)
    model = train_classifier(texts, np.arange(600) < 300)
    np.testing.assert_allclose(score_on_beam(model, iter(texts), "DirectRunner"), model.scores(texts), atol=1e-6)
