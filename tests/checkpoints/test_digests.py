"""A folder that was digested is believed only while every byte is what it was."""

import hashlib
import json

import pytest
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cptjax.checkpoints.digests import (
    DIGESTS,
    UnreadableDigests,
    digest_file,
    files_of,
    first_damage,
    read_digests,
    write_digests,
)


@pytest.fixture
def folder(tmp_path) -> epath.Path:
    """A folder with nested files, an empty one among them."""
    root = epath.Path(tmp_path / "whole")
    for name, content in {
        "a.bin": b"\x00\x01" * 5000,
        "state/d/b": b"bytes",
        "state/empty": b"",
        "ü.txt": b"x",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    write_digests(root)
    return root


def test_a_digest_is_the_sha256_and_the_length(folder):
    content = (folder / "a.bin").read_bytes()
    assert digest_file(folder / "a.bin").sha256 == hashlib.sha256(content).hexdigest()
    assert read_digests(folder)["a.bin"].bytes == 10000


def test_every_file_is_digested_and_the_list_does_not_contain_itself(folder):
    assert set(read_digests(folder)) == {"a.bin", "state/d/b", "state/empty", "ü.txt"}
    write_digests(folder)  # again, beside an older list
    assert DIGESTS not in files_of(folder)
    assert first_damage(folder) is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_single_flipped_bit_is_found_and_its_file_named(folder, data):
    name = data.draw(st.sampled_from(["a.bin", "state/d/b", "ü.txt"]))
    content = (folder / name).read_bytes()
    position = data.draw(st.integers(0, len(content) * 8 - 1))
    flipped = bytearray(content)
    flipped[position // 8] ^= 1 << position % 8
    (folder / name).write_bytes(bytes(flipped))
    try:
        damage = first_damage(folder)
        assert damage.file == name and "other bytes" in damage.reason
    finally:
        (folder / name).write_bytes(content)


def test_a_truncated_a_longer_and_a_missing_file_are_told_apart(folder):
    path = folder / "state" / "d" / "b"
    path.write_bytes(b"byte")
    assert first_damage(folder).reason == "has 4 bytes; 5 were written"
    path.write_bytes(b"bytes.")
    assert first_damage(folder).reason == "has 6 bytes; 5 were written"
    path.unlink()
    assert first_damage(folder).file == "state/d/b"
    assert first_damage(folder).reason == "is missing"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"format": 1}', b'{"format": 1, "files": {"a": {}}}']
)
def test_a_damaged_list_is_damage_not_a_crash(folder, content):
    (folder / DIGESTS).write_bytes(content)
    with pytest.raises(UnreadableDigests):
        read_digests(folder)
    assert first_damage(folder).file == DIGESTS


def test_a_list_of_a_later_format_is_refused_by_its_number(folder):
    (folder / DIGESTS).write_text(json.dumps({"format": 7, "files": {}}))
    assert "has format 7" in first_damage(folder).reason


def test_a_missing_list_and_a_list_that_forgets_a_file_are_damage(folder):
    assert first_damage(folder, ["unknown"]).reason == "does not name unknown"
    (folder / DIGESTS).unlink()
    assert first_damage(folder).reason == "is missing"
