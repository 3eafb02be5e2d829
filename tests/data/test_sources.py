"""Reading text: each kind of file, and each way that a file can be wrong, named by file and line."""

import gzip
import json

import pytest

from cptjax.data.sources import content_identity, documents, find_source
from cptjax.errors import ConfigurationError, CptjaxError


def lines(*records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def texts(where) -> list[str]:
    return [document.text for document in documents(find_source("s", where))]


def test_json_lines_are_read_plain_and_compressed(tmp_path):
    content = lines({"id": "a", "text": "één", "year": 1999, "tags": ["x"]}, {"text": "two"}) + "\n"
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(content)
    for name in ("a.jsonl", "a.jsonl.gz"):
        first, second = documents(find_source("s", str(tmp_path / name)))
        assert (first.name, first.text, first.size, first.metadata) == ("a", "één", 5, {"year": 1999})
        assert second.name == f"{name}:2"


def test_a_plain_text_file_is_one_document(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_bytes(b"first\r\nline")
    (tmp_path / "b.md").write_text("second", encoding="utf-8")
    (tmp_path / "ignored.log").write_text("third", encoding="utf-8")
    found = list(documents(find_source("s", str(tmp_path))))
    assert [(document.name, document.text) for document in found] == [
        ("b.md", "second"),
        ("one/a.txt", "first\r\nline"),
    ]


def test_globs_lists_and_repetitions(tmp_path):
    for name in "bac":
        (tmp_path / f"{name}.jsonl").write_text(lines({"text": name}))
    assert texts(str(tmp_path / "*.jsonl")) == ["a", "b", "c"]
    assert texts([str(tmp_path / "c.jsonl"), str(tmp_path / "[ac].jsonl")]) == ["c", "a"]


def test_relative_and_absolute_paths_may_be_mixed(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(name)
    monkeypatch.chdir(tmp_path)
    found = documents(find_source("s", ["a/x.txt", str(tmp_path / "b" / "x.txt")]))
    assert [(document.name, document.text) for document in found] == [("a/x.txt", "a"), ("b/x.txt", "b")]


def test_empty_texts_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"text": ""}, {"text": "x"}))
    assert texts(str(tmp_path / "a.jsonl")) == ["x"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"text": "x"', "line 2 is not JSON"),
        (b"[1, 2]", "line 2 holds list, not an object"),
        (b'{"id": "a", "body": "x"}', r"line 2 has no text: its fields are \['body', 'id'\]"),
        (b'{"text": 7}', 'line 2 has no text: its "text" is int'),
        (b'{"text": null}', 'line 2 has no text: its "text" is NoneType'),
        (b'{"text": "a\xff"}', "line 2 is not UTF-8: byte 11 is 0xff"),
        (b'{"text": "a\\ud800b"}', "line 2 holds half of a surrogate pair"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, complaint):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(ConfigurationError, match=f"a.jsonl, {complaint}"):
        texts(str(path))


def test_a_damaged_gzip_file_is_named(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(lines(*({"text": f"{i} " * 50} for i in range(100))).encode())
    for damaged in (whole[: len(whole) // 2], b"plain text", whole[:50] + b"\0\1\2" + whole[53:]):
        path.write_bytes(damaged)
        with pytest.raises(CptjaxError, match="a.jsonl.gz"):
            texts(str(path))


def test_paths_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"NUMPY")
    for where, complaint in [
        (tmp_path / "missing.jsonl", "there is no file or folder"),
        (tmp_path / "*.jsonl", "nothing matches"),
        (tmp_path, "holds no .jsonl"),
        (tmp_path / "a.npy", "of a kind that is not read"),
        ([], "its list of paths is empty"),
        ("tfds:wiki", "names no version"),
        (["tfds:wiki:1.0.0", "tfds:c4:1.0.0"], "stands alone"),
    ]:
        with pytest.raises(ConfigurationError, match=f"'law'.*{complaint}"):
            find_source("law", where if isinstance(where, list) else str(where))
    for name in ("", "a/b", ".hidden", "a b"):
        with pytest.raises(ConfigurationError, match="cannot name a source"):
            find_source(name, str(tmp_path))


def test_identity_is_of_the_content(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text(lines({"text": "same"}))
    one, two = (content_identity(find_source("s", str(tmp_path / folder))) for folder in ("one", "two"))
    assert one == two
    (tmp_path / "two" / "a.jsonl").write_text(lines({"text": "other"}))
    assert content_identity(find_source("s", str(tmp_path / "two"))) != one


def test_texts_of_installed_packages_are_named_by_kind_and_limit():
    source = find_source("s", "python:source#2e5")
    assert (source.python, source.files, source.where) == ("source#200000", (), "python:source#200000")
    assert find_source("s", ["python:descriptions"]).python == "descriptions"
    [identity] = content_identity(source)
    assert identity["name"] == "python:source#200000" and len(identity["sha256"]) == 64
    assert next(documents(source)).metadata["package"]


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("python:docs", "there is no python:docs. There are python:documentation, python:source, python:descriptions"),
        ("python:source#", "is limited to ''"),
        ("python:source#-1", "write bytes, as in python:source#4e6"),
        ("python:source#1.5", "is limited to '1.5'"),
        ("python:source#nan", "is limited to 'nan'"),
        ("python:source#inf", "is limited to 'inf'"),
        (["python:source", "a.jsonl"], "python:source stands alone"),
    ],
)
def test_texts_of_installed_packages_that_cannot_be_are_refused(where, complaint):
    with pytest.raises(ConfigurationError, match=f"source 's'.*{complaint}"):
        find_source("s", where)
