"""MinHash: bands as its formula says, candidates that are verified, and the groups that the exact search finds."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection import deduplication, minhash
from cptjax.selection.deduplication import NearDuplicates
from cptjax.selection.minhash import _by_datasketch, banding, components, minhash_groups, signatures
from cptjax.selection.near_duplicates import groups
from cptjax.selection.shingles import jaccard, word_shingles

pytest.importorskip("rensa", reason="needs the `selection` extra")


def copies(seed, count=40):
    """Texts of 60 words, every second one a copy of the one before with a few words changed."""
    generator = np.random.default_rng(seed)
    texts = []
    for i in range(count):
        words = generator.integers(10_000, size=60) if i % 2 == 0 else texts[-1].copy()
        if i % 2:
            changed = generator.integers(1, 6)
            words[generator.integers(60, size=changed)] = generator.integers(10_000, size=changed)
        texts.append(words)
    return [" ".join(map(str, words)) for words in texts]


@given(st.floats(0.3, 0.95), st.sampled_from([64, 128, 256]), st.sampled_from([1e-2, 1e-4]))
@settings(max_examples=30)
def test_as_many_rows_as_the_missed_allow(threshold, permutations, miss):
    def missed(bands, rows):
        return (1 - threshold**rows) ** bands

    bands, rows = banding(threshold, permutations, miss)
    assert missed(bands, rows) <= miss * 1.001 and bands * rows <= permutations
    assert missed(permutations // (rows + 1), rows + 1) > miss * 0.999


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.7]))
@settings(max_examples=8)
def test_its_groups_are_the_exact_ones(seed, threshold):
    sets = [word_shingles(text) for text in [*copies(seed), "", ""]]
    assert np.array_equal(minhash_groups(sets, threshold, miss=1e-6), groups(sets, threshold))


@pytest.mark.parametrize("sign", [signatures, lambda *given: _by_datasketch(*given, 1)])
def test_signatures_agree_as_often_as_sets_are_similar(sign):
    pytest.importorskip("datasketch")
    sets = [word_shingles(text, 1) for text in copies(3, 2)]
    one, other = sign(sets, 2048)
    assert abs(np.mean(one == other) - jaccard(*sets)) < 0.05


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
@settings(max_examples=30)
def test_components_are_what_edges_connect(edges):
    label = np.arange(10)
    for _ in range(10):
        for i, j in edges:
            label[[i, j]] = min(label[i], label[j])
    assert np.array_equal(components(10, edges), label)


@pytest.mark.parametrize("miss", [0, 1, 2, -0.1, "1e-4"])
def test_a_miss_that_is_no_probability_is_refused(miss):
    with pytest.raises(ConfigurationError, match="MISS = "):
        NearDuplicates(miss=miss)


def test_signatures_of_another_library_are_another_selection(monkeypatch):
    """Rensa's and datasketch's differ, so a selection that the one began is not gone on with by the other."""
    pytest.importorskip("datasketch")
    policy, sets = NearDuplicates(method="minhash"), [word_shingles(text, 1) for text in copies(3, 2)]
    rensas, made_of = signatures(sets, 16), policy.made_of()
    monkeypatch.setattr(minhash, "signer", lambda: "datasketch")
    monkeypatch.setattr(deduplication, "signer", lambda: "datasketch")
    assert not np.array_equal(rensas, signatures(sets, 16)) and policy.made_of() != made_of
    assert made_of["NearDuplicates"]["signatures"] == "rensa" and "signatures" not in str(NearDuplicates().made_of())


def test_too_few_permutations_are_refused():
    with pytest.raises(ConfigurationError, match="find no pair of similarity 0.1"):
        NearDuplicates(0.1, method="minhash", permutations=16)
    with pytest.raises(ConfigurationError, match="needs METHOD"):
        NearDuplicates(runner="DirectRunner")
    with pytest.raises(ConfigurationError, match="METHOD = 'lsh'"):
        NearDuplicates(method="lsh")


@pytest.mark.slow
def test_the_statutes_pairs_are_found_and_beam_finds_the_same(shared_data):
    pytest.importorskip("apache_beam", reason="needs the `text` extra")
    import gzip

    with gzip.open(shared_data / "corpora" / "chinese_law.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    here, found = NearDuplicates(0.7, 5, method="minhash").select(texts)
    assert sum(not fate.kept for fate in here) == 29 and "27 groups" in found
    some = [texts[i] for i in range(len(texts)) if here[i].cluster is not None] + texts[:60]
    one = NearDuplicates(0.7, 5, method="minhash").select(some)
    assert NearDuplicates(0.7, 5, method="minhash", runner="DirectRunner").select(some) == one
