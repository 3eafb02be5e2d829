"""docs/models.md says how to add a family: its example is taken from there and does what every family must."""

import re
import textwrap
from pathlib import Path

import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.registry import FAMILIES

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/models.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    """The code that docs/models.md has behind <!-- mark -->."""
    found = re.search(rf" *<!-- {mark} -->\n *```python\n(.*?)\n *```\n", GUIDE, re.DOTALL)
    return textwrap.dedent(found[1])


MODELS = eval("{" + block("models: stablelm") + "}")


@pytest.fixture
def stablelm(monkeypatch):
    """The family of the guide, registered."""
    module = {}
    exec(compile(block("family: stablelm"), "docs/models.md", "exec"), module)
    monkeypatch.setitem(FAMILIES, "stablelm", module["STABLELM"])
    return module["STABLELM"]


@pytest.mark.parametrize("name", MODELS)
def test_the_family_of_the_guide_is_read_and_given_back_as_the_others_are(stablelm, name, monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    parity = pytest.importorskip("test_parity")
    monkeypatch.setitem(parity.THEIRS, name, MODELS[name])
    ids = parity.jnp.asarray(parity.np.random.default_rng(0).integers(0, parity.TINY["vocab_size"], (2, parity.LENGTH)))
    parity.test_we_read_theirs_and_give_it_back_unchanged(name, ids, tmp_path)


def test_it_refuses_by_name_what_the_decoder_does_not_compute(stablelm):
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
    }
    config = stablelm.read_config(
        sizes | {"num_key_value_heads": 2, "use_qkv_bias": True, "partial_rotary_factor": 0.5}
    )
    assert config == DecoderConfig(
        *(64, 16, 2, 4, 2, 4, 24), norm="layer", rotary_fraction=0.5, query_key_value_bias=True, maximum_length=4096
    )
    assert stablelm.read_config(stablelm.write_config(config)) == config
    with pytest.raises(ConfigurationError, match="use_parallel_residual = True"):
        stablelm.read_config(sizes | {"use_parallel_residual": True})
    with pytest.raises(ConfigurationError, match="cannot express norm = 'rms'"):
        stablelm.write_config(DecoderConfig(64, 16, 2, 4, 2, 4, 24, rotary_fraction=0.5))


def test_the_table_of_families_has_them_all():
    rows = re.findall(r"^\|.*?\| `(\w+)` \|", GUIDE.split("## Adding a family")[0], re.MULTILINE)
    assert len(rows) == len(set(rows)) and set(FAMILIES) <= set(rows)


def test_the_list_of_model_configs_has_them_all():
    listed = GUIDE.split("## Model configs")[1].split("## ")[0]
    names = {start + size for start, sizes in re.findall(r"`([\w.]+)\{([^}]*)\}`", listed) for size in sizes.split(",")}
    names |= set(re.findall(r"`([\w.]+)`", listed))
    assert {path.stem for path in (ROOT / "gin/models").glob("*.gin")} <= names
