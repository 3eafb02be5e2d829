"""Installed packages as text: what is taken, in which order, and that it does not depend on where they are."""

import ast
import shutil
import sys

import pytest

from cptjax.data import installed
from cptjax.data.docstrings import docstrings
from cptjax.data.sources import content_identity, documents, find_source
from cptjax.errors import ConfigurationError

PROSE = " ".join(["This sentence says in plain English words what the function below is good for and why."] * 8)
CODE = f'"""{PROSE}"""\n' + "def f(x):\n    # why\n    return x\n" * 30


def read(name):
    return list(documents(find_source("x", name)))


def test_a_limit_takes_a_part_of_the_same_order_and_the_identity_tells_them_apart():
    small, large = read("python:source#3e5"), read("python:source#6e5")
    assert 5 < len(small) < len(large) and large[: len(small)] == small
    assert 1e5 < sum(document.size for document in small) < 5e5
    names = [document.name for document in large]
    assert len(set(names)) == len(names) and not any(name.startswith(("/", "cptjax/")) for name in names)
    assert len({document.metadata["package"] for document in large}) > 5
    identities = [content_identity(find_source("x", f"python:{rest}")) for rest in ("source#3e5", "source#300000")]
    assert identities[0] == identities[1]
    assert content_identity(find_source("x", "python:source#6e5")) != identities[0]
    assert content_identity(find_source("x", "python:documentation#3e5")) != identities[0]


def test_a_part_is_the_files_of_the_larger_limit_that_the_smaller_has_not():
    first, second, both = (read(f"python:source#{part}") for part in ("3e5", "3e5:6e5", "6e5"))
    assert first and second and first + second == both
    identities = [content_identity(find_source("x", f"python:source#{part}")) for part in ("3e5:6e5", "300000:600000")]
    assert identities[0] == identities[1] != content_identity(find_source("x", "python:source#6e5"))
    for part in ("6e5:3e5", "3e5:3e5", "1e5:2e5:3e5", ":3e5", "3e5:"):
        with pytest.raises(ConfigurationError, match="#4e6:5e6"):
            find_source("x", f"python:source#{part}")


def test_the_kinds_hold_what_they_say():
    prose = read("python:documentation#2e6")
    assert prose[0].name.startswith("python/help/") and not prose[-1].name.startswith("python/help/")
    assert all(len(document.text.split()) >= 40 for document in prose)
    assert {"jax", "numpy"} & {document.metadata["package"] for document in read("python:descriptions")}
    code = read("python:source#1e6")
    for document in code:
        assert not list(docstrings(ast.parse(document.text)))
    assert not {document.name for document in code} & {document.name for document in prose}


def test_the_identity_changes_with_any_byte(monkeypatch):
    before = installed.identity("source#200000")
    (file, raw), *rest = list(installed._chosen("source#200000"))
    monkeypatch.setattr(installed, "_chosen", lambda name: iter([(file, raw + b"#"), *rest]))
    assert installed.identity("source#200000") != before


def forget():
    for cached in (installed._distributions, installed._python_files, installed._descriptions):
        cached.cache_clear()


def install(folder, name, files, metadata="", record=True):
    """Writes a distribution as pip leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}", encoding="utf-8")
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    if record:
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in [*files, f"{info.name}/METADATA", "../bin/x"]))


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A folder of packages that stands for all that is installed, without a standard library."""
    folder = tmp_path / "mit Leerzeichen ü" / "packages"
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(installed.sysconfig, "get_path", lambda name: str(tmp_path / "no library"))
    monkeypatch.setattr(installed, "_help_topics", lambda: ())
    forget()
    yield folder
    forget()


def test_tests_generated_files_and_what_cannot_be_read_are_left_out(environment):
    left_out = ("tests/a.py", "b_test.py", "test_b.py", "conftest.py", "x_pb2.py", "_version.py", "data.txt")
    files = {"pack/a.py": CODE, "pack/latest.py": CODE, **{f"pack/{path}": CODE for path in left_out}}
    files |= {
        "pack/small.py": "x = 1\n",
        "pack/large.py": "x = 1\n" * 50_000,
        "pack/latin.py": CODE.encode() + b"# \xe9",
    }
    files |= {"pack/old.py": CODE + "print 'x'\n", "pack/escape.py": f'"""\\ud800 {PROSE}"""\n' + CODE}
    install(environment, "Pack_Age", files)
    install(environment, "cptjax", {"cptjax/a.py": CODE})
    code = ["pack-age/pack/a.py", "pack-age/pack/escape.py", "pack-age/pack/latest.py"]
    assert sorted(document.name for document in read("python:source")) == code
    assert all(
        PROSE not in document.text and document.text.count("# why") == 30 for document in read("python:source")[:1]
    )
    prose = read("python:documentation")
    assert sorted(document.name for document in prose) == ["pack-age/pack/a.py:", "pack-age/pack/latest.py:"]
    assert {document.text for document in prose} == {PROSE} and prose[0].metadata == {"package": "pack-age"}


def test_a_long_file_gives_its_documentation_and_is_no_document_itself(environment):
    long = f'"""{PROSE}"""\n' + CODE + "x = 1\n" * 4_000
    install(environment, "pack", {"long.py": long, "short.py": CODE}, metadata=f"\n{PROSE * 500}\n")
    assert [document.name for document in read("python:source")] == ["pack/short.py"]
    assert "pack/long.py:" in {document.name for document in read("python:documentation")}
    with pytest.raises(ConfigurationError, match="descriptions gives no document"):
        read("python:descriptions")


def test_the_same_packages_in_another_place_are_the_same_text(environment, tmp_path, monkeypatch):
    for name in ("b", "a", "c"):  # each owns its own module, and says that it owns one that they share
        install(
            environment,
            name,
            {f"{name}.py": CODE, "shared.py": CODE},
            metadata=f"\n{PROSE} {PROSE}",
            record=name != "c",
        )
    names = ["python:source", "python:documentation", "python:source#3000", "python:descriptions"]
    before = [(read(name), content_identity(find_source("x", name))) for name in names]
    assert sorted(document.name for document in before[0][0]) == ["a/a.py", "a/shared.py", "b/b.py", "c/c.py"]
    other = tmp_path / "elsewhere"
    shutil.copytree(environment, other)
    link = tmp_path / "link"
    link.symlink_to(other)
    monkeypatch.setattr(sys, "path", [str(link), str(other)])
    forget()
    assert [(read(name), content_identity(find_source("x", name))) for name in names] == before


def test_descriptions_of_both_forms(environment):
    install(environment, "new", {}, metadata=f"License: MIT\n\n{PROSE} {PROSE}\n")
    install(environment, "old", {}, metadata=f"Description: Über alles\n        \n          {PROSE}\n        {PROSE}\n")
    install(environment, "short", {}, metadata="\nToo short.\n")
    install(environment, "foreign", {}, metadata=f"\n{'описание ' * 200}\n")
    found = {document.name: document.text for document in read("python:descriptions")}
    assert set(found) == {"new/METADATA", "old/METADATA"}
    assert found["new/METADATA"] == f"{PROSE} {PROSE}"
    assert found["old/METADATA"] == f"Über alles\n\n  {PROSE}\n{PROSE}"


def test_an_empty_result_says_what_to_do(environment):
    install(environment, "new", {"a.py": "x = 1\n" * 400})
    assert len(read("python:source#1")) == 1
    with pytest.raises(ConfigurationError, match="python:documentation#2000 gives no document here.*raise the limit"):
        read("python:documentation#2e3")
    with pytest.raises(ConfigurationError, match="python:descriptions gives no document here; none is installed"):
        read("python:descriptions")
