from collections.abc import Mapping, Sequence

import pytest

from cptjax.configuration.types import described, matches
from cptjax.training.schedule import Schedule
from cptjax.training.start import Start


@pytest.mark.parametrize(
    "value, annotation",
    [
        (2, int),
        (2, float),
        (2.5, float | None),
        (None, float | None),
        ("a", str | Sequence[str]),
        (["a", "b"], str | Sequence[str]),
        ({"fsdp": -1}, Mapping[str, int] | None),
        (True, bool),
        ({"a": ["b"]}, Mapping[str, str | Sequence[str]]),
        (2e6, int),
        ("anything", complex),  # not of a kind that is told apart
        ([1, 2], tuple[int, ...]),
    ],
)
def test_what_an_annotation_allows(value, annotation):
    assert matches(value, annotation)


@pytest.mark.parametrize(
    "value, annotation, words",
    [
        ("2", float, "a number"),
        (True, int, "a whole number"),
        (2.5, int, "a whole number"),
        ("cosine", Schedule, "@...Schedule()"),
        ("folder", Start, "@...Random(), @...Initialize() or @...Branch()"),
        (5, str, "a string"),
        (5, str | Sequence[str], "a string or a list"),
        ({"fsdp": True}, Mapping[str, int] | None, "a dict whose values are whole numbers or None"),
        (8, Mapping[str, int] | None, "a dict whose values are whole numbers or None"),
        ("no", bool, "True or False"),
        (["a", 3], Sequence[str], "a list"),
    ],
)
def test_what_it_rules_out(value, annotation, words):
    assert not matches(value, annotation)
    assert described(annotation) == words
