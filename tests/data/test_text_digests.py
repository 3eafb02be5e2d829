"""Digests of files: of their bytes as they are, and of large ones remembered by size and time of change."""

import hashlib
import os

import pytest

from cptjax.data import text_digests as digests
from cptjax.data.text_digests import file_digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 100)
    return tmp_path / "cache" / "cptjax" / "digests"


def write(path, content: bytes, age: float = 100.0):
    """Writes a file that was changed so many seconds ago."""
    path.write_bytes(content)
    changed = path.stat().st_mtime - age
    os.utime(path, (changed, changed))
    return str(path)


def test_it_is_the_sha256_of_the_bytes_and_large_ones_are_read_once(tmp_path, cache):
    small, large = write(tmp_path / "small", b"s" * 99), write(tmp_path / "large", b"l" * 100)
    for _ in range(2):
        assert file_digest(small) == hashlib.sha256(b"s" * 99).hexdigest()
        assert file_digest(large) == hashlib.sha256(b"l" * 100).hexdigest()
    (kept,) = cache.iterdir()
    kept.write_text("remembered")  # what is kept is what is told, but to whoever asks for the file itself
    assert (
        file_digest(large) == "remembered" and file_digest(large, again=True) == hashlib.sha256(b"l" * 100).hexdigest()
    )
    assert file_digest(large) == hashlib.sha256(b"l" * 100).hexdigest()


@pytest.mark.parametrize("age", [99.0, 100.5, 0.0])
def test_a_change_of_size_or_time_is_seen(tmp_path, age):
    file_digest(write(tmp_path / "large", b"l" * 100))
    other = write(tmp_path / "large", b"L" * 100, age)
    assert file_digest(other) == hashlib.sha256(b"L" * 100).hexdigest()
    longer = write(tmp_path / "large", b"L" * 101)
    assert file_digest(longer) == hashlib.sha256(b"L" * 101).hexdigest()


def test_a_file_that_has_only_just_changed_is_not_remembered(tmp_path, cache):
    file_digest(write(tmp_path / "large", b"l" * 100, age=0.0))
    assert not cache.exists()


def test_without_a_place_to_remember_it_is_hashed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert file_digest(write(tmp_path / "large", b"l" * 100)) == hashlib.sha256(b"l" * 100).hexdigest()
