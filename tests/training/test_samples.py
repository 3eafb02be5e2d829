"""What a run is told of its samples: prompts that can be continued, or the reason why not."""

import dataclasses
import types

import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.training.samples import Samples

CONFIG = DecoderConfig(vocabulary=32, hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32)


def tokenizer(start):
    return types.SimpleNamespace(start=start, name="a tokenizer", encode=lambda text: [ord(letter) for letter in text])


def test_prompts_begin_as_documents_do():
    samples = Samples(every=2e3, prompts=["ab", ""], max_new_tokens=8.0)
    assert (samples.every, samples.max_new_tokens) == (2000, 8)
    assert samples.encoded(tokenizer(1), CONFIG) == [[1, 97, 98], [1]]
    with pytest.raises(ConfigurationError, match="SAMPLE_PROMPTS has '', which is no token"):
        samples.encoded(tokenizer(None), CONFIG)


def test_what_learned_positions_do_not_reach_is_refused():
    learned = dataclasses.replace(CONFIG, positions="learned", maximum_length=10)
    Samples(every=1, prompts=["ab"], max_new_tokens=8).encoded(tokenizer(1), learned)
    with pytest.raises(ConfigurationError, match="SAMPLE_PROMPTS: 'abc' and what follows it read 11 tokens"):
        Samples(every=1, prompts=["abc"], max_new_tokens=8).encoded(tokenizer(1), learned)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"every": 0}, "SAMPLE_EVERY"),
        ({"prompts": "Once"}, "SAMPLE_PROMPTS"),
        ({"prompts": []}, "SAMPLE_PROMPTS"),
        ({"prompts": [1]}, "SAMPLE_PROMPTS"),
        ({"max_new_tokens": 0}, "MAX_NEW_TOKENS"),
    ],
)
def test_settings_that_cannot_be_are_refused_where_they_are_asked_for(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Samples(**{"every": 100} | settings)
    assert Samples(**settings | {"every": None}).every is None
