"""Remote folders, with a local one standing in for the other machine: sent manifest last, brought here once."""

import pytest
from etils import epath

from cptjax.data import local


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A folder that counts as remote."""
    monkeypatch.setattr(local, "is_local", lambda path: not str(path).startswith(str(tmp_path / "remote")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "remote"


def test_the_manifest_arrives_last(remote, monkeypatch):
    aside = local.staging_folder(str(remote / "law-1"))
    for split in ("train", "validation"):
        (aside / split).mkdir()
        for name in ("manifest.json", "rows-00000", "zz"):
            (aside / split / name).write_text(f"{split} {name}")
    kind, order = type(epath.Path(aside)), []
    copy = kind.copy

    def noted(path, *args, **more):
        order.append(path.name)
        return copy(path, *args, **more)

    monkeypatch.setattr(kind, "copy", noted)
    local.publish(aside, str(remote / "law-1"), last=["manifest.json"])
    assert order[-2:] == ["manifest.json", "manifest.json"] and len(order) == 6
    assert (remote / "law-1" / "validation" / "zz").read_text() == "validation zz" and not aside.exists()


def test_a_remote_folder_is_brought_here_once(remote, tmp_path):
    remote.mkdir()
    (remote / "rows-00000").write_text("rows")
    here = local.local_copy(str(remote), "fingerprint")
    assert str(here).startswith(str(tmp_path / "cache")) and (epath.Path(here) / "rows-00000").read_text() == "rows"
    (remote / "rows-00000").unlink()
    assert local.local_copy(str(remote), "fingerprint") == here
    assert local.local_copy(str(tmp_path), "fingerprint") == str(tmp_path)


def test_whoever_finishes_second_gives_way(tmp_path):
    final = tmp_path / "law-1"
    first, second = (local.staging_folder(str(final)) for _ in range(2))
    for aside, text in ((first, "first"), (second, "second")):
        (aside / "rows").write_text(text)
        local.publish(aside, str(final), last=[])
    assert (final / "rows").read_text() == "first" and not second.exists()
