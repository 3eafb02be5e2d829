"""The harness's numbers for a checkpoint of ours, against those of its own Hugging Face backend on the exported folder."""

import json

import jax
import pytest

pytestmark = pytest.mark.slow
lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("transformers")

from harness_files import TASKS, questions, write_tasks  # noqa: E402

from cptjax.checkpoints.exporting import export_folder  # noqa: E402
from cptjax.errors import ConfigurationError  # noqa: E402
from cptjax.evaluation.compared import open_compared  # noqa: E402
from cptjax.evaluation.harness import HarnessModel  # noqa: E402
from cptjax.evaluation.harness_rows import CHANGES, VALUES  # noqa: E402
from cptjax.evaluation.harness_tasks import Harness, HarnessTasks, harness_results  # noqa: E402
from cptjax.evaluation.own_samples import Model  # noqa: E402
from cptjax.models.numerics import Numerics  # noqa: E402
from cptjax.sharding.mesh import build_mesh  # noqa: E402


@pytest.fixture(scope="module")
def mesh():
    return build_mesh({"fsdp": 2}, jax.devices()[:2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("harness") / "tasks")


@pytest.fixture(scope="module")
def checkpoint(shared_data):
    (one,), _ = open_compared({"story": str(shared_data / "stories260K")}, None)
    return one


@pytest.fixture(scope="module")
def ours(checkpoint, mesh):
    return HarnessModel(
        Model(checkpoint.opened.load_parameters(mesh), checkpoint.opened.config, Numerics()), checkpoint.tokenizer, mesh
    )


@pytest.fixture(scope="module")
def theirs(checkpoint, mesh, ours, tmp_path_factory):
    from lm_eval.models.huggingface import HFLM

    opened, exported = checkpoint.opened, tmp_path_factory.mktemp("exported") / "model"
    given = (ours._model.params, opened.config, opened.family, opened.original_config, opened.model_folder)
    export_folder(*given, exported, tokenizer_config=checkpoint.tokenizer.undeclared())
    return HFLM(pretrained=str(exported), device="cpu", dtype="float32", batch_size=8)


def evaluated(model, folder):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(model=model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0)


@pytest.fixture(scope="module")
def both(ours, theirs, folder):
    return evaluated(ours, folder), evaluated(theirs, folder)


def test_log_probabilities_and_accuracies_are_those_of_the_hugging_face_backend(both):
    mine, yours = both
    compared = 0
    for task in TASKS:
        for one, other in zip(mine["samples"][task], yours["samples"][task], strict=True):
            assert one["doc_id"] == other["doc_id"] and one["arguments"] == other["arguments"]
            for (answer,), (expected,) in zip(one["resps"], other["resps"], strict=True):
                compared += 1
                if task == "tiny_written":
                    assert answer == expected and answer
                elif task == "tiny_rolling":
                    assert answer == pytest.approx(expected, abs=1e-3)
                else:
                    assert answer[0] == pytest.approx(expected[0], abs=1e-3) and bool(answer[1]) == bool(expected[1])
    assert compared == 16 * (4 + 4 + 1) + 3
    for task in ("tiny_choices", "tiny_letters", "tiny_written"):
        named = {key: value for key, value in mine["results"][task].items() if "," in key}
        assert named == {key: yours["results"][task][key] for key in named}
    assert 0 < mine["results"]["tiny_choices"]["acc,none"] < 1
    rolled, expected = (found["results"]["tiny_rolling"] for found in both)
    assert rolled["bits_per_byte,none"] == pytest.approx(expected["bits_per_byte,none"], rel=1e-6)


@pytest.mark.parametrize("text", ["Once upon a time", " Lily  saw", "<s>Once", "a\nb", "日本"])
def test_texts_are_cut_into_the_same_tokens(ours, theirs, text):
    assert ours.tok_encode(text) == theirs.tok_encode(text)
    assert ours.tok_encode(text, add_special_tokens=False) == theirs.tok_encode(text, add_special_tokens=False)
    assert ours._encode_pair("Once upon ", text) == theirs._encode_pair("Once upon ", text)
    assert (ours.max_length, ours.eot_token_id, ours.prefix_token_id) == (512, 2, 1)
    assert (theirs.max_length, theirs.eot_token_id, theirs.prefix_token_id) == (512, 2, 1)


def test_results_are_rows_with_intervals_and_kept(checkpoint, ours, folder, mesh, tmp_path):
    tasks = HarnessTasks(["tiny_choices", "tiny_rolling"], str(folder), limit=6.0)
    harness, loaded = Harness(tasks, own_tasks=False), []
    (again,), _ = open_compared({"again": str(checkpoint.opened.path)}, None)

    def load(one):
        loaded.append(one.label)
        return ours._model

    def rows(harness):
        given = (harness, [checkpoint, again], checkpoint, load, "float32", tmp_path, mesh, 0, True, lambda line: None)
        return harness_results(*given, watch=lambda items, *_: items)

    found = rows(harness)
    by_metric = {(row["checkpoint"], row["subset"], row["metric"]): row for row in found}
    accuracy = by_metric["story", "tiny_choices", "acc"]
    assert accuracy["suite"] == "harness" and accuracy["n"] == 6 and accuracy["interval"] == VALUES
    share, spread = accuracy["value"], accuracy["high"] - accuracy["value"]
    assert spread == pytest.approx(1.96 * (share * (1 - share) / 5) ** 0.5) and accuracy["low"] == pytest.approx(
        share - spread
    )
    change = by_metric["again", "tiny_choices", "acc_change"]
    assert change["value"] == change["low"] == change["high"] == 0.0 and change["interval"] == CHANGES
    assert ("story", "tiny_choices", "acc_change") not in by_metric
    rolling = by_metric["story", "tiny_rolling", "bits_per_byte"]
    assert (
        rolling["n"] == 3
        and rolling["low"] is None
        and ("again", "tiny_rolling", "bits_per_byte_change") not in by_metric
    )
    assert loaded == ["story", "again"] and rows(harness) == found and loaded == ["story", "again"]
    kept = json.loads((tmp_path / "harness" / "story" / "tiny_choices.json").read_text())
    assert len(kept["tasks"]["tiny_choices"]["acc"]["shares"]) == 6
    with (folder / "questions.jsonl").open("a") as stream:
        stream.write(json.dumps(questions()[0]) + "\n")  # other data, other settings: asked again
    rows(Harness(tasks, own_tasks=False))
    assert loaded == ["story", "again"] * 2


def test_a_group_without_numbers_of_its_own_has_no_rows(checkpoint, ours, folder, mesh, tmp_path):
    group = tmp_path / "tasks"
    group.mkdir()
    (group / "tiny_choices.yaml").write_text((folder / "tiny_choices.yaml").read_text())
    (group / "both.yaml").write_text("group: both\ntask: [tiny_choices]\n")
    harness, loaded = Harness(HarnessTasks("both", str(group), limit=2), own_tasks=False), []

    def rows():
        given = (harness, [checkpoint], checkpoint, lambda one: loaded.append(one) or ours._model, "float32", tmp_path)
        return harness_results(*given, mesh, 0, True, lambda line: None, lambda items, *_: items)

    found = rows()
    assert {row["subset"] for row in found} == {"tiny_choices"} and {row["n"] for row in found} == {2}
    file = tmp_path / "harness" / "story" / "both.json"
    kept = json.loads(file.read_text())
    assert set(kept["tasks"]) == {"tiny_choices"}
    file.write_text(json.dumps(kept | {"tasks": kept["tasks"] | {"both": {}}}))  # as it was kept before
    assert rows() == found and len(loaded) == 1


def test_what_cannot_be_asked_is_refused(ours, folder):
    with pytest.raises(ConfigurationError, match=r"(?s)TASKS names 'tiny_letter'.*There is tiny_letters"):
        Harness(HarnessTasks(["tiny_letter"], str(folder)), own_tasks=False)
    with pytest.raises(ConfigurationError, match="TASK_FOLDER = '/nowhere' is not a folder"):
        Harness(HarnessTasks("tiny_letters", "/nowhere"), own_tasks=False)
    for settings, message in (
        ({"num_beams": 4}, "num_beams = 4, which cptjax does not do"),
        ({"max_gen_toks": 512}, "512 new tokens of a model that was made for 512 positions"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            ours._drawing(settings)
