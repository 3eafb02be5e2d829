"""Which checkpoints are compared, what they are called, and which is the base."""

import shutil

import pytest

from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import labelled, open_compared


@pytest.fixture(scope="module")
def folders(shared_data, tmp_path_factory):
    """Three copies of a real checkpoint."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name in ("one", "two", "elsewhere/one"):
        shutil.copytree(shared_data / "stories260K", root / name)
    return root


def test_paths_are_labelled_by_their_last_part(folders):
    assert labelled(f"{folders / 'one'}/") == {"one": f"{folders / 'one'}/"}
    compared, base = open_compared([str(folders / "one"), str(folders / "two")], None)
    assert [one.label for one in compared] == ["one", "two"] and base is compared[0]
    assert compared[0].opened.identity == compared[1].opened.identity and compared[0].tokens is None


def test_a_glob_is_all_that_match_it_steps_in_their_order(tmp_path):
    for step in ("900", "1000", "20"):
        (tmp_path / "run" / "checkpoints" / step).mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "7.part").write_text("a file is no checkpoint")
    (tmp_path / "run" / "checkpoints" / "1100.orbax-checkpoint-tmp").mkdir()  # of a save that was killed
    steps = str(tmp_path / "run" / "checkpoints" / "*")
    assert list(labelled(steps)) == ["20", "900", "1000"]
    assert list(labelled({"base": "/model", "first": steps})) == ["base", "first/20", "first/900", "first/1000"]
    assert list(labelled(f"{steps}/")) == ["20", "900", "1000"]
    (tmp_path / "other" / "checkpoints" / "model").mkdir(parents=True)  # no run's
    assert list(labelled(str(tmp_path / "other" / "checkpoints" / "*"))) == ["model"]
    with pytest.raises(ConfigurationError, match="no folder matches"):
        labelled([str(tmp_path / "none*")])


def test_the_base_is_a_label_a_path_among_them_or_a_path_of_its_own(folders):
    checkpoints = {"first": str(folders / "one"), "second": str(folders / "two")}
    for given, labels, expected in (
        ("second", ["first", "second"], "second"),
        (f"{folders}/elsewhere/../two/", ["first", "second"], "second"),
        (str(folders / "elsewhere" / "one"), ["base", "first", "second"], "base"),
    ):
        compared, base = open_compared(checkpoints, given)
        assert [one.label for one in compared] == labels and base.label == expected


def test_other_weights_are_another_identity(folders, tmp_path):
    shutil.copytree(folders / "one", tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    compared, _ = open_compared({"one": str(folders / "one"), "other": str(tmp_path / "other")}, None)
    assert compared[0].opened.identity != compared[1].opened.identity


@pytest.mark.parametrize(
    "checkpoints, base, message",
    [
        ({}, None, "CHECKPOINTS is empty"),
        ([], None, "CHECKPOINTS is empty"),
        (["{}/one", "{}/elsewhere/one"], None, "the label 'one' twice: {}/one and {}/elsewhere/one"),
        ({" ": "{}/one"}, None, "CHECKPOINTS holds ' '"),
        ({"one": ""}, None, "CHECKPOINTS holds 'one': ''"),
        ({"one": "{}/three"}, None, "the checkpoint 'one': There is nothing at '{}/three'"),
        ({"one": "{}"}, None, "the checkpoint 'one': "),
        ({"one": "{}/one"}, "three", "BASE = 'three' is neither a label of CHECKPOINTS ('one') nor the path"),
        ({"base": "{}/one"}, "{}/two", "another of that label: {}/one"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(folders, checkpoints, base, message):
    def filled(value):
        if isinstance(value, dict):
            return {name: filled(each) for name, each in value.items()}
        return [filled(each) for each in value] if isinstance(value, list) else value.replace("{}", str(folders))

    with pytest.raises(ConfigurationError) as refusal:
        open_compared(filled(checkpoints), base and filled(base))
    assert filled(message) in str(refusal.value)
