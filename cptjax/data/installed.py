"""Text that every machine has: the documentation, the source and the descriptions of the installed Python packages.

Nothing is imported: files are parsed. They are taken in a pseudo-random order that depends on their names alone, so that
a limit takes an even sample, and the same packages give the same text on any machine. Our own files are left out.
"""

import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cptjax.data.docstrings import docstrings, parsed, without_docstrings
from cptjax.data.document import Document
from cptjax.errors import ConfigurationError

PYTHON = "python:"
KINDS = ("documentation", "source", "descriptions")
_VERSION = 4  # of the rules below: other rules, other text
_LEAST, _MOST = 1_000, 200_000  # bytes of a file that is taken: below is little more than imports, above mostly data
# Bytes of a document: longer ones are tables and changelogs, and a few of them would be most of what is held out.
_LONGEST = 20_000
_TEST = re.compile(r"(^|/)(tests?|testing|idlelib|lib2to3)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.py$")
_GENERATED = re.compile(r"_pb2(_grpc)?\.py$|(^|/)_?version\.py$|(^|/)pydoc_data/|(^|/)_sysconfigdata|^config-\d")
_DOCUMENTATION_WORDS, _DESCRIPTION_WORDS = 40, 100
_PROSE = 0.75  # the least share of letters and spaces in what counts as English prose
_SURROGATE = re.compile("[\ud800-\udfff]")  # an escape in a docstring can write what UTF-8 cannot


@dataclasses.dataclass(frozen=True)
class _File:
    """A text of a package: `name` is "package/path", free of where it is installed; `content` a path, or the bytes."""

    package: str
    name: str
    content: str | bytes


def parse_name(source: str, item: str) -> str:
    """`python:kind`, `python:kind#bytes` or `python:kind#bytes:bytes`, checked and in one form ("kind#4000000", "kind").

    Raises:
        ConfigurationError: another kind, or a limit that is no number of bytes, or a part that holds none.
    """
    kind, mark, limit = item.removeprefix(PYTHON).partition("#")
    if kind not in KINDS:
        raise ConfigurationError(
            f"source {source!r}: there is no {PYTHON}{kind}. There are {', '.join(PYTHON + each for each in KINDS)}."
        )
    if not mark:
        return kind
    try:
        sizes = [float(size) for size in limit.split(":")]
        if len(sizes) > 2 or sizes != sorted(set(sizes)) or not all(size >= 1 and size.is_integer() for size in sizes):
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"source {source!r}: {item} is limited to {limit!r}; write bytes, as in {PYTHON}{kind}#4e6,"
            f" or from where on too: {PYTHON}{kind}#4e6:5e6 is the files of #5e6 that are not of #4e6."
        ) from None
    return f"{kind}#{':'.join(str(int(size)) for size in sizes)}"


def identity(name: str) -> str:
    """sha256 over the rules, the name and every file that is read: equal identities, equal text.

    The version of Python is one of the rules: it says what can be parsed.
    """
    digest = hashlib.sha256(f"{_VERSION} {sys.version_info[:2]} {name}".encode())
    for file, raw in _chosen(name):
        digest.update(f"{file.name}\n{len(raw)}\n".encode())
        digest.update(raw)
    return digest.hexdigest()


def installed_documents(name: str) -> Iterator[Document]:
    """The documents of a name that `parse_name` gave, in a fixed order.

    documentation: docstrings of at least 40 words of English prose, one document each, and Python's help topics.
    source: files without their docstrings (what is held out of one kind must not be trained on in the other).
    descriptions: the long descriptions of the packages, of at least 100 words of English prose.
    What this Python cannot parse is passed over. `#bytes` counts the bytes of the files that are read; `#a:b` is the files of #b
    that are not of #a.

    Raises:
        ConfigurationError: there is none.
    """
    kind, _, limit = name.partition("#")
    empty = True
    for file, raw in _chosen(name):
        for document in _documents_of(kind, file, raw.decode("utf-8")):
            empty = False
            yield document
    if empty:
        most = limit.rpartition(":")[2]
        wider = f"the files within its {int(most):,} bytes hold none: raise the limit" if limit else "none is installed"
        raise ConfigurationError(f"{PYTHON}{name} gives no document here; {wider}, or name other text.")


def is_prose(text: str, words: int) -> bool:
    """Whether a text has so many words and is mostly English letters and spaces."""
    plain = sum(character.isascii() and (character.isalpha() or character.isspace()) for character in text)
    return len(text.split()) >= words and plain >= _PROSE * len(text)


def _documents_of(kind: str, file: _File, text: str) -> Iterator[Document]:
    if isinstance(file.content, bytes):
        if is_prose(text, _DESCRIPTION_WORDS if kind == "descriptions" else _DOCUMENTATION_WORDS):
            yield _document(file.name, text, file.package)
        return
    tree = parsed(text)
    if tree is None:
        return
    if kind == "source":
        code = without_docstrings(text, tree)
        if code is not None:
            yield _document(file.name, code, file.package)
        return
    for docstring in docstrings(tree):
        cleaned = inspect.cleandoc(docstring.text)
        if len(cleaned) > _LONGEST or _SURROGATE.search(cleaned):
            continue
        if is_prose(cleaned, _DOCUMENTATION_WORDS):
            yield _document(f"{file.name}:{docstring.place}", cleaned, file.package)


def _document(name: str, text: str, package: str) -> Document:
    return Document(name, text, len(text.encode("utf-8")), {"package": package})


def _chosen(name: str) -> Iterator[tuple[_File, bytes]]:
    """The files of a name with their bytes, from its first limit on until they hold as many as the last; what is not UTF-8 is
    passed over."""
    kind, _, limit = name.partition("#")
    first, _, last = limit.rpartition(":")
    before, read = int(first or 0), 0
    for file in _descriptions() if kind == "descriptions" else _files(kind):
        if last and read >= int(last):
            return
        raw = _read(file, _MOST if kind == "documentation" else _LONGEST)
        if raw is not None:
            if read >= before:
                yield file, raw
            read += len(raw)


def _files(kind: str) -> tuple[_File, ...]:
    return _help_topics() + _python_files() if kind == "documentation" else _python_files()


def _read(file: _File, most: int) -> bytes | None:
    if isinstance(file.content, bytes):
        return file.content if len(file.content) <= _LONGEST else None
    try:
        with open(file.content, "rb") as stream:
            raw = stream.read(most + 1)
        raw.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return raw if _LEAST <= len(raw) <= most else None


def _help_topics() -> tuple[_File, ...]:
    """What `help("topic")` shows; some Pythons come without it."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return ()
    return tuple(_File("python", f"python/help/{topic}", text.encode()) for topic, text in sorted(topics.items()))


@functools.cache
def _python_files() -> tuple[_File, ...]:
    """Every Python file that may be taken: of the distributions and of the standard library, in the fixed order."""
    found: dict[str, _File] = {}  # by place: a file that two distributions own is one file
    listed = {name: _recorded(distribution) for name, distribution in _distributions().items()}
    walked = {name: _walked(_distributions()[name]) for name, files in listed.items() if files is None}
    for name, files in [(name, files) for name, files in listed.items() if files is not None] + list(walked.items()):
        root = os.path.realpath(str(_distributions()[name].locate_file("")))
        for path in filter(_taken, files):
            place = os.path.join(root, path)
            found.setdefault(place, _File(name, f"{name}/{path}", place))
    library = os.path.realpath(sysconfig.get_path("stdlib"))
    for path in filter(_taken, _under(library)):
        place = os.path.join(library, path)
        found.setdefault(place, _File("python", f"python/{path}", place))
    return _in_order(found.values())


@functools.cache
def _descriptions() -> tuple[_File, ...]:
    """The long description in the metadata of each distribution: what follows its headers, or, in old ones, one of them."""
    found = []
    for name, distribution in _distributions().items():
        metadata = distribution.metadata
        body = metadata.get_payload()  # type: ignore[attr-defined]
        text = body if isinstance(body, str) and body.strip() else str(metadata.get("Description") or "")
        text = text.replace("\r\n", "\n").strip()
        if text and not _SURROGATE.search(text):
            found.append(_File(name, f"{name}/METADATA", text.encode()))
    return _in_order(found)


@functools.cache
def _distributions() -> Mapping[str, importlib.metadata.Distribution]:
    """The installed distributions by name, in the order of their names, whatever the order of the folders they are in."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        try:
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        except (UnicodeDecodeError, TypeError, KeyError):  # damaged, or a folder without metadata
            continue
        if name and name != "cptjax":
            found.setdefault(name, distribution)  # the first on the path is the one that is imported
    return dict(sorted(found.items()))


def _recorded(distribution: importlib.metadata.Distribution) -> list[str] | None:
    """The paths that a distribution's RECORD lists; None without one."""
    record = distribution.read_text("RECORD")
    return None if not record else [row[0] for row in csv.reader(record.splitlines()) if row]


def _walked(distribution: importlib.metadata.Distribution) -> list[str]:
    """The Python files of a distribution without a list of them: those of its top-level packages and modules."""
    tops = (distribution.read_text("top_level.txt") or distribution.metadata["Name"].replace("-", "_")).split()
    root = Path(str(distribution.locate_file("")))
    inside = [f"{top}/{path}" for top in tops for path in _under(str(root / top))]
    return inside + [f"{top}.py" for top in tops if (root / f"{top}.py").is_file()]


def _under(folder: str) -> Iterator[str]:
    """Paths below a folder, with '/', of the files in it and in its folders; what pip installs there is not its own."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__")]
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        yield from files if below == "." else (f"{below}/{name}" for name in files)


def _taken(path: str) -> bool:
    inside = path.endswith(".py") and not path.startswith("/") and ".." not in PurePosixPath(path).parts
    return inside and not _TEST.search(path) and not _GENERATED.search(path)


def _in_order(files: Iterable[_File]) -> tuple[_File, ...]:
    return tuple(sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest()))
