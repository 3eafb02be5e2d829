"""What an evaluation holds out must have been held out from the runs, and from those that they started from."""

import json
from types import SimpleNamespace

import pytest

from cptjax.data.splits import SplitSettings
from cptjax.errors import ConfigurationError
from cptjax.evaluation.held_out import refuse_trained_text

THEN = {"fraction": 0.02, "tokens": 1000, "near_duplicates": 0.7}


def write_data(folder, split=THEN, files=("aa", "bb"), fingerprint="rows"):
    """A run's folder with its data.json; `split` None: as older versions wrote it."""
    folder.mkdir(parents=True, exist_ok=True)
    source = {
        "role": "trained",
        "files": [{"path": f"/data/{f}", "sha256": f} for f in files],
        "fingerprint": fingerprint,
    }
    (folder / "data.json").write_text(json.dumps({"code": source if split is None else {**source, "split": split}}))
    return folder


def checkpoint(folder, *ancestors):
    """A checkpoint of the run in `folder` that started from these."""
    runs = [
        SimpleNamespace(run=str(run), exposures={"code": SimpleNamespace(fingerprint="rows")})
        for run in (*ancestors, folder)
    ]
    opened = SimpleNamespace(path=folder, store=object(), lineage=SimpleNamespace(runs=tuple(runs)))
    return SimpleNamespace(label="after", opened=opened)


SAME = SplitSettings(**THEN)


def said(one, split=SAME, text=("bb", "aa")):
    return refuse_trained_text([one], {"python": text, "other": ["zz"]}, split)


def test_the_same_settings_or_less_of_the_same_line_are_fine(tmp_path):
    one = checkpoint(write_data(tmp_path / "run"))
    assert said(one) == said(one, SplitSettings(0.01, 1000)) == said(one, SplitSettings(0.02, 10)) == []


@pytest.mark.parametrize(
    "split, message",
    [
        (SplitSettings(0.2, 1000), "VALIDATION_FRACTION was 0.02 in the run, and is 0.2 here"),
        (SplitSettings(0.02, 2000), "VALIDATION_TOKENS was 1000 in the run, and is 2000 here"),
        (SplitSettings(0.02, 1000, None), "NEAR_DUPLICATES was 0.7 in the run, and is None here"),
    ],
)
def test_text_that_was_trained_on_is_refused_by_name(tmp_path, split, message):
    trunk, run = write_data(tmp_path / "trunk"), write_data(tmp_path / "run", files=["cc"])
    for one, whose in ((checkpoint(trunk), trunk), (checkpoint(run, trunk), trunk)):
        with pytest.raises(ConfigurationError, match=message) as refusal:
            said(one, split)
        for part in ("'after'", f"source 'code' of the run '{whose}' is 'python' here", "Set these"):
            assert part in str(refusal.value)
    assert said(checkpoint(run), split) == []  # other text


def test_of_a_run_in_a_group_the_groups_folder_tells(tmp_path):
    group = write_data(tmp_path / "group")
    told = json.loads((group / "data.json").read_text())
    of_another = {**told["code"], "fingerprint": "what another run of the group read"}
    (group / "data.json").write_text(
        json.dumps({**told, "law": {**of_another, "files": [{"path": "zz", "sha256": "zz"}]}})
    )
    one = checkpoint(group / "first")
    assert said(one) == []  # and of "law", which this one did not read, nothing is said
    with pytest.raises(ConfigurationError, match="VALIDATION_TOKENS was 1000 in the run, and is 2000 here"):
        said(one, SplitSettings(0.02, 2000))


def test_what_is_not_known_is_said_and_no_error(tmp_path):
    old = checkpoint(write_data(tmp_path / "old", split=None))
    assert said(old) == ["after: how its source 'code' was split is not known (an older cptjax wrote its data.json)"]
    more = checkpoint(write_data(tmp_path / "more", files=["aa", "cc"]))
    assert "have files in common, but not all" in said(more)[0]
    gone = checkpoint(write_data(tmp_path / "run"), tmp_path / "gone")
    (sentence,) = said(gone)
    assert f"after comes from the run '{tmp_path / 'gone'}': what it held out is not known" in sentence
    replaced = checkpoint(write_data(tmp_path / "another", fingerprint="other rows"))
    assert "or of another run" in said(replaced)[0]


def test_of_a_hugging_face_folder_nothing_is_said(tmp_path):
    one = SimpleNamespace(label="before", opened=SimpleNamespace(path=tmp_path, store=None))
    assert said(one) == []
