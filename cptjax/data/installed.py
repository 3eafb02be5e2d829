"""Text that every machine has: the documentation, the source and the descriptions of the installed Python packages.

Nothing is imported: files are parsed. They are taken in a pseudo-random order that depends on their names alone, so that
a limit takes an even sample, and the same packages give the same text on any machine. Our own files are left out.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cptjax.data.document import Document
from cptjax.errors import ConfigurationError

PYTHON = "python:"
KINDS = ("documentation", "source", "descriptions")
_VERSION = 1  # of the rules below: other rules, other text
_SIZES = (1_000, 200_000)  # bytes of a file that is taken: below is little more than imports, above mostly data
_TEST = re.compile(r"(^|/)(tests?|testing|idlelib|lib2to3)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.py$")
_GENERATED = re.compile(r"_pb2(_grpc)?\.py$|(^|/)_?version\.py$|(^|/)pydoc_data/")
_DOCUMENTATION_WORDS, _DESCRIPTION_WORDS = 40, 100
_PROSE = 0.75  # the least share of letters and spaces in what counts as English prose


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of a package: `name` is "package/path", free of where it is installed."""

    package: str
    name: str
    path: Path


def parse_name(source: str, item: str) -> str:
    """`python:kind` or `python:kind#bytes`, checked and in one form ("kind#4000000", "kind").

    Raises:
        ConfigurationError: another kind, or a limit that is no number of bytes.
    """
    kind, mark, limit = item.removeprefix(PYTHON).partition("#")
    if kind not in KINDS:
        raise ConfigurationError(
            f"source {source!r}: there is no {PYTHON}{kind}. There are {', '.join(PYTHON + each for each in KINDS)}."
        )
    if not mark:
        return kind
    try:
        size = float(limit)
        if not (size >= 1 and size.is_integer()):
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"source {source!r}: {item} is limited to {limit!r}; write bytes, as in {PYTHON}{kind}#4e6."
        ) from None
    return f"{kind}#{int(size)}"


def identity(name: str) -> str:
    """sha256 over the rules, the name and every file that is read: equal identities, equal text."""
    digest = hashlib.sha256(f"{_VERSION} {name}".encode())
    for file, raw in _chosen(name):
        digest.update(f"{file.name}\n{len(raw)}\n".encode())
        digest.update(raw)
    return digest.hexdigest()


def installed_documents(name: str) -> Iterator[Document]:
    """The documents of a name that `parse_name` gave, in a fixed order.

    documentation: docstrings of at least 40 words of English prose, one document each, and Python's help topics.
    source: files without their docstrings (what is held out of one kind must not be trained on in the other).
    descriptions: the long descriptions of the packages, of at least 100 words of English prose.
    """
    kind = name.partition("#")[0]
    for file, raw in _chosen(name):
        text = raw.decode("utf-8", errors="replace")
        if file.path.suffix != ".py":
            if is_prose(text, _DESCRIPTION_WORDS if kind == "descriptions" else _DOCUMENTATION_WORDS):
                yield _document(file.name, text, file.package)
            continue
        tree = _parsed(text)
        if tree is None or "\r" in text or "\f" in text:  # line numbers would not be those of the text's lines
            continue
        if kind == "source":
            yield _document(file.name, without_docstrings(text, tree), file.package)
            continue
        for place, docstring in docstrings(tree):
            cleaned = inspect.cleandoc(docstring.value.value)
            if is_prose(cleaned, _DOCUMENTATION_WORDS):
                yield _document(f"{file.name}:{place}", cleaned, file.package)


def is_prose(text: str, words: int) -> bool:
    """Whether a text has so many words and is mostly English letters and spaces."""
    plain = sum(character.isascii() and (character.isalpha() or character.isspace()) for character in text)
    return len(text.split()) >= words and plain >= _PROSE * len(text)


def docstrings(tree: ast.Module) -> list[tuple[str, ast.Expr]]:
    """(dotted place, its statement) of every docstring in a module, in the order of the file; "" is the module's."""
    found: list[tuple[str, ast.Expr]] = []

    def visit(node: ast.AST, place: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                found.append((place, first))
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                visit(child, f"{place}.{child.name}".lstrip(".") if named else place)

    visit(tree, "")
    return found


def without_docstrings(text: str, tree: ast.Module) -> str:
    """The source with its docstrings taken out; a body that held nothing else becomes `pass`. Comments stay."""
    alone = {
        id(node.body[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) == 1
    }
    lines = text.encode().split(b"\n")  # ast counts columns in bytes
    for _, statement in reversed(docstrings(tree)):
        first, last = statement.lineno - 1, statement.end_lineno - 1
        before, after = lines[first][: statement.col_offset], lines[last][statement.end_col_offset :]
        if id(statement) in alone:
            lines[first : last + 1] = [before + b"pass" + after]
            continue
        rest = after.lstrip(b" \t;")  # another statement, or a comment, on the docstring's last line
        lines[first : last + 1] = [before + rest] if rest or before.strip() else []
    return b"\n".join(lines).decode()


def _parsed(text: str) -> ast.Module | None:
    """None for what is not Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _document(name: str, text: str, package: str) -> Document:
    return Document(name, text, len(text.encode("utf-8")), {"package": package})


def _chosen(name: str) -> Iterator[tuple[_File, bytes]]:
    """The files of a name with their bytes, until they hold as many as its limit; what is not UTF-8 is passed over."""
    kind, _, limit = name.partition("#")
    left = int(limit) if limit else None
    if kind == "documentation":
        for topic, text in sorted(_help_topics().items()):
            raw = text.encode()
            yield _File("python", f"python/help/{topic}", Path(topic)), raw
            left = None if left is None else left - len(raw)
    for file in _metadata_files() if kind == "descriptions" else _python_files():
        if left is not None and left <= 0:
            return
        try:
            raw = file.path.read_bytes()
            if kind == "descriptions":
                raw = _description(raw)
            elif not _SIZES[0] <= len(raw) <= _SIZES[1]:
                continue
            raw.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        yield file, raw
        left = None if left is None else left - len(raw)


def _help_topics() -> dict[str, str]:
    """What `help("topic")` shows; some Pythons come without it."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return {}
    return topics


def _description(metadata: bytes) -> bytes:
    """The long description in a METADATA file: what follows its headers."""
    return metadata.replace(b"\r\n", b"\n").partition(b"\n\n")[2].strip()


@functools.cache
def _python_files() -> tuple[_File, ...]:
    """Every Python file that may be taken: of the distributions and of the standard library, in the fixed order."""
    found: dict[str, _File] = {}
    for package, path, place in _distribution_files():
        if path.suffix == ".py" and ".." not in path.parts and not _left_out(str(path)):
            found.setdefault(str(place), _File(package, f"{package}/{path}", place))
    library = Path(sysconfig.get_path("stdlib"))
    for place in library.rglob("*.py"):
        path = PurePosixPath(place.relative_to(library))
        if not {"site-packages", "dist-packages", "__pycache__"} & set(path.parts) and not _left_out(str(path)):
            found.setdefault(str(place), _File("python", f"python/{path}", place))
    return _in_order(found)


@functools.cache
def _metadata_files() -> tuple[_File, ...]:
    found = {
        str(place): _File(package, f"{package}/METADATA", place)
        for package, path, place in _distribution_files()
        if path.name == "METADATA" and path.parent.name.endswith(".dist-info")
    }
    return _in_order(found)


def _distribution_files() -> Iterator[tuple[str, PurePosixPath, Path]]:
    """(package, path in it, where it is) of every file that the installed distributions say they own."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if not name or name in seen or name == "cptjax":  # the first on the path is the one that is imported
            continue
        seen.add(name)
        for path in distribution.files or ():
            yield name, PurePosixPath(path), Path(distribution.locate_file(path))


def _left_out(path: str) -> bool:
    return bool(_TEST.search(path) or _GENERATED.search(path))


def _in_order(found: dict[str, _File]) -> tuple[_File, ...]:
    return tuple(sorted(found.values(), key=lambda file: hashlib.sha256(file.name.encode()).digest()))
