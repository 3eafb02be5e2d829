import pytest

from cptjax.errors import ConfigurationError
from cptjax.training.optimizer import AdamW, decay_mask


@pytest.mark.parametrize(
    "setting",
    [
        {"weight_decay": "x"},
        {"weight_decay": -0.1},
        {"beta1": 1.0},
        {"epsilon": 0},
    ],
)
def test_values_that_cannot_be_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(ConfigurationError, match=f"AdamW.{name}"):
        AdamW(**setting)


def test_norms_and_biases_do_not_decay():
    names = [
        "embedding.table",
        "head.kernel",
        "layers.mlp.up.kernel",
        "layers.mlp_norm.scale",
        "layers.attention.key.bias",
    ]
    assert [decay_mask(dict.fromkeys(names))[name] for name in names] == [True, True, True, False, False]
