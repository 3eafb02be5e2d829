"""What `convert` with CHECK=True says: agreement to rounding, and refusal of anything more."""

import dataclasses
import json
import sys

import jax
import pytest

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.against_transformers import MOST, compare, first_rows, refuse_disagreement
from cptjax.models.config import DecoderConfig
from cptjax.models.families.registry import FAMILIES
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(vocabulary=67, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48)
ROWS = [list(range(1, 40)), list(range(60, 30, -1))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check") / "model"
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    export_folder(initialize(CONFIG, 0, mesh), CONFIG, FAMILIES["llama"], None, None, folder)
    return folder, load_parameters(open_folder(folder), mesh), mesh


def test_the_same_weights_agree_to_rounding(exported):
    pytest.importorskip("transformers")
    folder, params, mesh = exported
    agreement = compare(params, CONFIG, mesh, folder, ROWS)
    assert agreement.tokens == sum(map(len, ROWS))
    assert 0 <= agreement.largest < 1e-4 and abs(agreement.kl) < 1e-6
    refuse_disagreement(agreement, folder)


@pytest.mark.parametrize("field, value", [("rope_theta", 500.0), ("norm_epsilon", 0.1), ("windows", (8,))])
def test_another_decoder_than_the_folder_describes_is_refused(exported, field, value):
    pytest.importorskip("transformers")
    folder, params, mesh = exported
    agreement = compare(params, dataclasses.replace(CONFIG, **{field: value}), mesh, folder, ROWS)
    assert agreement.largest > MOST and agreement.kl > 0
    with pytest.raises(CptjaxError, match=r"disagree on it by up to .* nats"):
        refuse_disagreement(agreement, folder)


def test_without_transformers_it_is_said_what_to_install(exported, monkeypatch):
    folder, params, mesh = exported
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match="pip install torch transformers"):
        compare(params, CONFIG, mesh, folder, ROWS)


def test_rows_are_the_beginning_of_the_text(shared_data, tmp_path):
    tokenizer = open_tokenizer(str(shared_data / "stories260K"))
    texts = ["Once upon a time", "there was a cat"]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    whole = [token for text in texts for token in (tokenizer.bos, *tokenizer.encode(text))]
    rows = first_rows(str(path), tokenizer, 3, 8)
    assert [token for row in rows for token in row] == whole[:24] and {len(row) for row in rows[:-1]} == {8}
    path.write_text('{"text": ""}\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no text to compare"):
        first_rows(str(path), tokenizer, 3, 8)
