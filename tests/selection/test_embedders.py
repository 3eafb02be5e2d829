"""Embeddings of units: transformers' states of their last tokens, however they are batched, on any mesh; and the controls."""

import json
import types

import jax
import numpy as np
import pytest
from corpora import corpus_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.models.flops import flops_per_token
from cptjax.models.layer_states import layer_states, pooled
from cptjax.models.numerics import Numerics
from cptjax.selection.costs import embedding_flops, selection_flops
from cptjax.selection.embedders import Embedder, embed_sequences, padded_to, random_vectors, tfidf_vectors
from cptjax.sharding.mesh import build_mesh

TEXTS = ["Once upon a time", "a cat", "Lily saw a big red dog in the park and ran home to her mum. " * 4, "x"] * 3


@pytest.fixture(scope="module")
def embedded(shared_data):
    """The last layer's states on one device and on four, and the tokens that were given."""
    embedder = Embedder(str(shared_data / "stories260K"))
    tokens = [embedder.tokenizer.encode(text) for text in TEXTS] + [[]]
    found = [embedder.on(build_mesh({"fsdp": n}, jax.devices()[:n]))(tokens) for n in (1, 4)]
    return embedder, tokens, found


def test_they_are_transformers_states_of_the_last_token(embedded, shared_data):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    embedder, tokens, (found, _) = embedded
    theirs = transformers.LlamaForCausalLM.from_pretrained(shared_data / "stories260K").eval()
    for ids, vector in zip(tokens[:5], found, strict=False):
        with torch.no_grad():
            states = theirs(torch.tensor([[embedder.tokenizer.bos, *ids]]), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(vector, states[-1][0, -1].numpy(), atol=2e-5, rtol=1e-4)


def test_neither_the_mesh_nor_the_neighbours_matter(embedded):
    _, tokens, (one, four) = embedded
    np.testing.assert_allclose(one, four, atol=2e-5)
    for i in range(4, len(TEXTS)):
        np.testing.assert_allclose(one[i], one[i - 4], atol=2e-5)
    assert np.abs(one[0] - one[1]).max() > 0.1


@given(st.lists(st.lists(st.integers(3, 400), max_size=40), max_size=9), st.sampled_from(["last", "mean"]))
@settings(max_examples=6)
def test_a_batch_gives_each_sequence_what_it_has_alone(read_alone, sequences, pooling):
    config, params, mesh, programs, alone = read_alone
    sequences = [*sequences, list(range(3, 43))]  # the longest is always as long: few shapes are compiled
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cptjax.selection.embedders.BATCH_TOKENS", 160)
        found = embed_sequences(programs[pooling], params, config, mesh, sequences)
    assert found.shape == (len(sequences), config.hidden)
    for vector, sequence in zip(found, sequences, strict=True):
        states = alone(sequence) if sequence else np.zeros((1, config.hidden))
        np.testing.assert_allclose(vector, states[-1] if pooling == "last" else states.mean(0), atol=2e-5)


@pytest.fixture(scope="module")
def read_alone(embedded):
    """The checkpoint on one device, and a sequence's own states there, position by position, with nothing beside it."""
    checkpoint, mesh = embedded[0].checkpoint, build_mesh({"fsdp": 1}, jax.devices()[:1])
    config, params = checkpoint.config, checkpoint.load_parameters(mesh)
    run = jax.jit(lambda params, **batch: layer_states(params, config, Numerics(), layer=config.layers, **batch)[0])

    def alone(sequence):
        ids = np.zeros((1, 40), np.int32)
        ids[0, : len(sequence)] = sequence  # what is causal does not see what follows
        ones, places = np.ones_like(ids), np.arange(40, dtype=np.int32)[None]
        with jax.set_mesh(mesh):
            return np.asarray(run(params, inputs=ids, positions=places, segment_ids=ones))[: len(sequence)]

    def program(pooling):
        def vectors(params, batch):
            states = layer_states(params, config, Numerics(), layer=config.layers, **batch)
            return pooled(states, batch["segment_ids"], pooling)

        return jax.jit(vectors)

    return config, params, mesh, {pooling: program(pooling) for pooling in ("last", "mean")}, alone


WORDS = st.lists(st.sampled_from(["red", "dog", "ran", "far"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(WORDS, min_size=4, max_size=9), st.integers(1, 3))
@settings(max_examples=10)
def test_tfidf_vectors_are_the_best_of_their_rank(texts, dimensions):
    """Their products are those of the nearest matrix of that rank (Eckart and Young), found by numpy's whole SVD."""
    pytest.importorskip("sklearn", reason="needs the `selection` extra")
    from sklearn.feature_extraction.text import TfidfVectorizer

    def grams(text):
        words = text.split()
        return words + [" ".join(pair) for pair in zip(words, words[1:], strict=False)]

    assume(len(set(sum(map(grams, texts), []))) > dimensions + 1)
    whole = TfidfVectorizer(analyzer=grams, sublinear_tf=True).fit_transform(texts).toarray()
    left, sizes, _ = np.linalg.svd(whole, full_matrices=False)
    assume(len(sizes) > dimensions and sizes[dimensions - 1] - sizes[dimensions] > 0.05)
    nearest = (left[:, :dimensions] * sizes[:dimensions] ** 2) @ left[:, :dimensions].T
    found = tfidf_vectors(lambda: iter(texts), dimensions, 0)
    np.testing.assert_allclose(found @ found.T, nearest, atol=1e-3)


@pytest.mark.parametrize("longest", [33, 129, 2048])
def test_lengths_are_padded_by_little_and_to_few(longest):
    padded = [padded_to(n, longest) for n in range(1, longest + 1)]
    assert all(n <= p <= max(32, n * 1.25, n + 31) and p <= longest for n, p in enumerate(padded, 1))
    assert padded == sorted(padded) and len(set(padded)) <= 24 and padded[-1] == longest


def test_vectors_of_a_corpus_follow_its_units(tmp_path, shared_data):
    embedder = Embedder(str(shared_data / "stories260K"), rows=3, most_tokens=16)
    corpus = corpus_of(TEXTS[:4], tmp_path)
    points = corpus.vectors(embedder)
    assert points.dtype == np.float16 and points.shape == (4, 64)
    part = corpus.left(np.array([False, True, False, True]), corpus.stages.below("1_Part"))
    np.testing.assert_array_equal(part.vectors(embedder)[:], points[np.array([1, 3])])
    # Operations are of what was embedded: BOS and a unit's tokens, at most 16 in all, in every part, each unit as long as it is.
    lengths = [min(16, 1 + len(embedder.tokenizer.encode(text))) for text in TEXTS[:4]]
    assert max(lengths) == 16 > min(lengths)
    wholes = [flops_per_token(embedder.checkpoint.config, n) for n in lengths]
    each = [(whole.forward - whole.head) * n for whole, n in zip(wholes, lengths, strict=True)]
    assert embedding_flops(corpus.stages) == pytest.approx(sum(each) + each[1] + each[3])
    assert embedding_flops(part.stages) == pytest.approx(each[1] + each[3])
    with pytest.raises(ConfigurationError, match="embeddings of something else: other layer"):
        corpus.vectors(Embedder(embedder.of, layer=2, rows=3, most_tokens=16))
    begun = json.loads((tmp_path / "stages" / "embeddings" / "begun.json").read_text())
    assert begun["made_of"]["layer"] == 5 and begun["made_of"]["checkpoint"]


def test_the_controls_know_what_they_are_told():
    pytest.importorskip("sklearn", reason="needs the `selection` extra")
    one, other = random_vectors(range(5), 8, 0), random_vectors(range(3, 5), 8, 0)
    assert np.array_equal(one[3:], other) and not np.array_equal(one, random_vectors(range(5), 8, 1))
    texts = ["red dog ran", "red dog ran", "blue fish swam far", "green bird sang a song"]
    found = tfidf_vectors(lambda: iter(texts), 3, 0)
    lengths = np.linalg.norm(found, axis=1)
    assert found[0] @ found[1] == pytest.approx(lengths[0] * lengths[1], rel=1e-5)
    assert abs(found[0] @ found[2]) < 1e-4 * lengths[0] * lengths[2]
    assert Embedder("random").flops([5, 7]) == 0
    assert np.isfinite(tfidf_vectors(lambda: iter(["same"] * 3), 3, 0)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"of": ""}, "EMBEDDER"), ({"pooling": "first"}, "POOLING"), ({"rows": 0}, "rows = 0 is below 1")],
)
def test_settings_that_are_none_are_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        Embedder(**{"of": "random", **wrong})


def test_a_selection_keeps_what_its_embedder_was_trained_with(tmp_path, shared_data):
    """Of a Hugging Face folder nobody knows it: it is named. Of a run, its lineage's. Of a control there is none."""
    stages = corpus_of(TEXTS[:4], tmp_path).stages
    embedder = Embedder(str(shared_data / "stories260K"))
    known = {"checkpoint": embedder.checkpoint.identity, "training": 0.0, "base": embedder.of}
    assert selection_flops(stages, embedder) == {"embedding": 0.0, "comparing": 0.0, "embedder": known}
    lineage = types.SimpleNamespace(flops=7_000, origin=types.SimpleNamespace(path=""))
    embedder.__dict__["checkpoint"] = types.SimpleNamespace(identity="of a run", lineage=lineage)
    assert selection_flops(stages, embedder)["embedder"] == {"checkpoint": "of a run", "training": 7e3, "base": None}
    assert selection_flops(stages, Embedder("random"))["embedder"] is selection_flops(stages, None)["embedder"] is None
