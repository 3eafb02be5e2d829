"""Generation: a real checkpoint's published text, the right frequencies, and sequences that do not know each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.source import open_checkpoint
from cptjax.errors import ConfigurationError
from cptjax.evaluation import generate as generation
from cptjax.evaluation.generate import _write, generate
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(vocabulary=12, hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=24, windows=(None, 4))
PROMPTS = [[1], [3, 4, 5], [2, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11, 10], [5], [6, 6, 6, 6]]


def mesh_of(sizes):
    return build_mesh(sizes, jax.devices()[: math.prod(sizes.values())])


ONE = {"fsdp": 1}


def model(sizes):
    """A model with opinions: as it is drawn, all tokens are about equally likely."""
    params = initialize(CONFIG, 0, mesh_of(sizes))
    return {**params, "head.kernel": params["head.kernel"] * 15}


def written(prompts=PROMPTS, sizes=ONE, new=15, **settings):
    return generate(model(sizes), CONFIG, Numerics(), mesh_of(sizes), prompts, new, **settings)


def whole(tokens):
    """Logits after each of the tokens, by the forward pass that training uses."""
    padded = jnp.asarray([tokens + [0] * (32 - len(tokens))])
    read = jax.jit(logits, static_argnums=(1, 2))
    scores = read(model(ONE), CONFIG, Numerics(), padded, jnp.arange(32)[None], jnp.ones_like(padded))
    return np.asarray(scores)[0, : len(tokens)]


def test_the_real_checkpoint_writes_its_published_text(shared_data):
    folder = shared_data / "stories260K"
    story = [int(token) for token in (folder / "greedy_256_tokens.txt").read_text().split()]
    opened = open_checkpoint(folder)
    params = opened.load_parameters(mesh_of(ONE))
    prompts = [story[:1], story[:40], story[:101], story[:2]]
    found = generate(params, opened.config, Numerics(), mesh_of(ONE), prompts, 256, temperature=0)
    assert len(story) == 257 and found[0] == story
    assert [tokens[:257] for tokens in found] == [story] * 4
    assert [len(tokens) for tokens in found] == [257, 296, 357, 258]


def test_greedy_is_the_likeliest_token_of_the_whole_forward_pass():
    for prompt, tokens in zip(PROMPTS, written(temperature=0), strict=True):
        assert tokens[: len(prompt)] == prompt and len(tokens) == len(prompt) + 15
        likeliest = np.argmax(whole(tokens), -1)
        assert tokens[len(prompt) :] == likeliest[len(prompt) - 1 : -1].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_the_model_says(temperature):
    """Chi-square of the first and (given the first) second token of 20,000 texts; a right sampler fails one time in 10,000."""
    count = 20_000
    found = np.array(written([[1]] * count, new=2, temperature=temperature))

    def expected(prompt):
        return np.asarray(jax.nn.softmax(whole(prompt)[-1] / temperature), np.float64)

    first = np.bincount(found[:, 1], minlength=CONFIG.vocabulary)
    commonest = int(first.argmax())
    second = np.bincount(found[found[:, 1] == commonest, 2], minlength=CONFIG.vocabulary)
    for observed, shares in ((first, expected([1])), (second, expected([1, commonest]))):
        assert shares.max() > 0.12  # not uniform, or the test would see little
        enough = shares * observed.sum() >= 5
        gathered = [np.append(x[enough], x[~enough].sum()) for x in (observed, shares * observed.sum())]
        gathered = [x[gathered[1] > 0] for x in gathered]
        chi_square = float(((gathered[0] - gathered[1]) ** 2 / gathered[1]).sum())
        freedom = len(gathered[0]) - 1
        # Wilson and Hilferty: the cube root of chi-square over its freedom is about normal; 3.72 deviations are 1e-4.
        limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
        assert freedom >= 4 and chi_square < limit


@pytest.mark.slow
def test_a_text_does_not_depend_on_how_the_batch_is_cut(monkeypatch):
    together = written()
    assert together == written() and together != written(seed=1)
    assert len(set(map(tuple, written([[1]] * 8)))) == 8  # equal prompts are drawn for one by one
    assert written(PROMPTS[:3]) == together[:3]
    monkeypatch.setattr(generation, "BATCH_TOKENS", 64)  # two rows at a time
    assert written() == together


@pytest.mark.parametrize(
    "sizes", [pytest.param({"fsdp": 8}, marks=pytest.mark.slow), {"replica": 2, "fsdp": 2, "tensor": 2}]
)
def test_a_text_does_not_depend_on_the_mesh(sizes):
    assert written(sizes=sizes) == written()
    assert written(sizes=sizes, temperature=0) == written(temperature=0)


def test_what_the_nucleus_leaves_out_is_never_drawn_and_the_rest_as_often_as_it_is_likely():
    prompt, top_p, count = [1], 0.6, 4000
    shares = np.asarray(jax.nn.softmax(whole(prompt)[-1]), np.float64)
    order = np.argsort(-shares, kind="stable")
    kept = order[: 1 + int(np.argmax(np.cumsum(shares[order]) >= top_p))]
    assert 1 < len(kept) < CONFIG.vocabulary
    drawn = np.array(written([prompt] * count, new=1, top_p=top_p))[:, 1]
    assert set(drawn.tolist()) == set(kept.tolist())
    expected = shares[kept] / shares[kept].sum()
    observed = np.array([(drawn == token).mean() for token in kept])
    assert np.all(np.abs(observed - expected) < 4.5 * np.sqrt(expected * (1 - expected) / count))
    # A nucleus of one token is the greedy text, at any temperature; one of all tokens draws what none does.
    assert written(top_p=1e-6, temperature=3.0) == written(temperature=0)
    assert written(top_p=1 - 1e-7) == written()


def test_a_prompt_is_continued_as_itself_wherever_it_stands():
    """Its number and the seed decide, not its neighbours: a part of a list begins with the number of its first."""
    together = written()
    for i, prompt in enumerate(PROMPTS):
        assert written([prompt], first=i) == [together[i]]
    assert written(PROMPTS[2:], first=2, top_p=0.8) == written(top_p=0.8)[2:]


def test_few_shapes_are_compiled_whatever_the_lengths_and_settings():
    def programs(lengths, **settings):
        before = _write._cache_size()
        written([[1 + i % 11 for i in range(length)] for length in lengths], **settings)
        return _write._cache_size() - before

    programs(range(1, 9), new=24, temperature=0.7, top_p=0.9)
    assert programs(range(2, 9), new=24, temperature=1.3, top_p=0.5, seed=4, eos=3) == 0
    assert programs(range(9, 2, -1), new=20, temperature=0.1, top_p=0.1) == 0  # 20 and 24 tokens have the same room


def test_after_its_end_a_text_is_finished():
    free = written()
    eos = free[0][4]
    for prompt, tokens, other in zip(PROMPTS, written(eos=eos), free, strict=True):
        made = other[len(prompt) :]  # an end within the prompt ends nothing
        assert tokens == prompt + (made[: made.index(eos) + 1] if eos in made else made)
    assert len(written(eos=eos)[0]) < len(free[0])


def test_no_new_tokens_leave_the_prompts_as_they_are():
    assert written(new=0) == PROMPTS and written([]) == []


def test_what_cannot_be_continued_is_refused():
    with pytest.raises(ConfigurationError, match="prompt 1 is empty"):
        written([[1], []])
    for settings, message in (
        ({"temperature": -1}, "TEMPERATURE = -1"),
        ({"temperature": float("inf")}, "TEMPERATURE = inf"),
        ({"top_p": 0}, "TOP_P = 0"),
        ({"top_p": 1.5}, "TOP_P = 1.5"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            written(**settings)
    learned = DecoderConfig(**{**CONFIG.__dict__, "positions": "learned", "maximum_length": 16, "windows": (None,)})
    with pytest.raises(
        ConfigurationError, match=r"prompt 1, continued by 8 tokens, reads 17 tokens: .* positions for 16"
    ):
        generate(None, learned, Numerics(), mesh_of(ONE), [[1] * 9, [1] * 10], 8)
