"""Generation: a real checkpoint's published text, the right frequencies, and sequences that do not know each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.source import open_checkpoint
from cptjax.errors import ConfigurationError
from cptjax.evaluation import generate as generation
from cptjax.evaluation.generate import generate
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
    with pytest.raises(ConfigurationError, match="TEMPERATURE"):
        written(temperature=-1)
