"""Where text comes from: JSONL(.gz), plain text files (one document each), TFDS (the only one to need TensorFlow), and
the Python packages installed here.

A source is written as a path, a glob, a folder, or a list of these; or as `tfds:name/config:version` (`#split` may
follow, `train` if it does not); or as `python:documentation`, `python:source`, `python:descriptions` (`#bytes` may follow).
"""

import dataclasses
import glob
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence

from etils import epath

from cptjax.data.document import Document
from cptjax.data.installed import PYTHON, identity, installed_documents, parse_name
from cptjax.data.local import files_under
from cptjax.errors import ConfigurationError, CptjaxError

TFDS = "tfds:"
_JSONL = (".jsonl", ".jsonl.gz", ".json", ".json.gz")  # .json as C4 and Dolma are published: lines too
_TEXT = (".txt", ".txt.gz", ".md", ".rst")
_BINARY = (
    ".parquet",
    ".arrow",
    ".zst",
    ".zip",
    ".tar",
    ".tgz",
    ".bz2",
    ".xz",
    ".bin",
    ".npy",
    ".tfrecord",
    ".array_record",
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A named source: its files in a fixed order, a TFDS data set, or a kind of text of the installed packages."""

    name: str
    files: Sequence[str] = ()
    tfds: str | None = None
    python: str | None = None

    @property
    def where(self) -> str:
        """In a few words."""
        if self.tfds or self.python:
            return self.tfds or PYTHON + self.python
        return self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"


def find_source(name: str, where: str | Sequence[str]) -> Source:
    """Resolves paths, globs and folders to files.

    Raises:
        ConfigurationError: a bad name, a path or glob that matches nothing, a kind of file that cannot be read.
    """
    if not name or not all(letter.isalnum() or letter in "_-." for letter in name) or name.startswith("."):
        raise ConfigurationError(f"{name!r} cannot name a source: use letters, digits, '_', '-' and '.'.")
    given = [where] if isinstance(where, str | os.PathLike) else where
    if not isinstance(given, list | tuple) or not all(isinstance(one, str | os.PathLike) for one in given):
        raise ConfigurationError(
            f"source {name!r} is {where!r}: write a path, a glob, a list of them, 'tfds:...' or 'python:...'."
        )
    given = [str(item) for item in given]
    if named := [item for item in given if item.startswith((TFDS, PYTHON))]:
        if len(given) > 1:
            raise ConfigurationError(f"source {name!r}: {named[0]} stands alone, not in a list with others: {given}.")
        if named[0].startswith(PYTHON):
            return Source(name, python=parse_name(name, named[0]))
        return Source(name, tfds=_tfds_name(name, named[0]))
    files = [file for item in given for file in _files(name, item)]
    if not files:
        raise ConfigurationError(f"source {name!r} has no files: its list of paths is empty.")
    return Source(name, tuple(dict.fromkeys(files)))


def documents(source: Source) -> Iterator[Document]:
    """The source's documents in a fixed order; those with empty text are passed over.

    Raises:
        ConfigurationError: a malformed line, named by file and line; text that is missing, no string, or not Unicode.
        CptjaxError: a damaged gzip file.
    """
    if source.tfds:
        read = _tfds_documents(source.tfds)
    else:
        read = installed_documents(source.python) if source.python else _file_documents(source.files)
    return (document for document in read if document.text)


def content_identity(source: Source) -> list[dict[str, str]]:
    """Name and sha256 of each file; for TFDS its name, which carries the version; for packages all their files as one."""
    if source.python:
        return [{"name": PYTHON + source.python, "sha256": identity(source.python)}]
    if source.tfds:
        return [{"name": source.tfds, "sha256": hashlib.sha256(source.tfds.encode()).hexdigest()}]
    return [{"name": epath.Path(file).name, "sha256": _sha256(file)} for file in source.files]


def _files(name: str, item: str) -> list[str]:
    path = epath.Path(item).expanduser()
    if path.is_dir():
        found = [str(file) for file in files_under(path) if file.name.endswith(_JSONL + _TEXT)]
        if not found:
            raise ConfigurationError(f"source {name!r}: the folder {item} holds no {', '.join(_JSONL + _TEXT)} file.")
        return found
    if any(letter in item for letter in "*?[") and not path.exists():
        pattern = str(path)
        found = sorted(
            glob.glob(pattern, recursive=True)
            if "://" not in pattern
            else map(str, epath.Path(pattern[: pattern.rfind("/")]).glob(pattern[pattern.rfind("/") + 1 :]))
        )
        if not found:
            raise ConfigurationError(f"source {name!r}: nothing matches {item} (in {os.getcwd()}).")
    elif path.exists():
        found = [str(path)]
    else:
        raise ConfigurationError(f"source {name!r}: there is no file or folder {item} (in {os.getcwd()}).")
    for file in found:
        if file.endswith(_BINARY):
            raise ConfigurationError(
                f"source {name!r}: {file} is of a kind that is not read.\n"
                f"  Give JSON lines ({', '.join(_JSONL)}), plain text, or a TFDS name (tfds:name/config:version)."
            )
    return found


def _tfds_name(name: str, item: str) -> str:
    written = item.removeprefix(TFDS)
    data_set, _, split = written.partition("#")
    if ":" not in data_set or data_set.endswith(":"):
        raise ConfigurationError(
            f"source {name!r}: {item} names no version, so its rows could not be told from another version's.\n"
            f"  Write it as tfds:name/config:version, for example {item}:1.0.0."
        )
    return f"{data_set}#{split or 'train'}"


def _file_documents(files: Sequence[str]) -> Iterator[Document]:
    names = _names(files)
    for file, name in zip(files, names, strict=True):
        try:
            with epath.Path(file).open("rb") as raw, gzip.open(raw) if file.endswith(".gz") else raw as lines:
                if file.endswith(_JSONL):
                    for number, line in enumerate(lines, 1):
                        if line.strip():
                            yield _json_document(line, f"{file}, line {number}", f"{name}:{number}")
                else:
                    text = _unicode(lines.read(), file)
                    yield Document(name, text, len(text.encode("utf-8")), {})
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise CptjaxError(
                f"{file} is damaged: {error}.\n  Its gzip stream cannot be read to the end; fetch it again."
            ) from error


def _names(files: Sequence[str]) -> list[str]:
    """Each file's path below the folder that holds them all: what documents without an id of their own are named by."""
    if any("://" in file for file in files):
        return list(files)
    whole = [os.path.abspath(file) for file in files]
    folder = os.path.commonpath([os.path.dirname(file) for file in whole])
    return [os.path.relpath(file, folder) for file in whole]


def _json_document(line: bytes, where: str, default_name: str) -> Document:
    try:
        record = json.loads(_unicode(line, where))
    except ValueError as error:
        raise ConfigurationError(
            f'{where} is not JSON: {error}.\n  Each line must be an object like {{"id": "a", "text": "..."}}.'
        ) from error
    if not isinstance(record, dict):
        raise ConfigurationError(f'{where} holds {type(record).__name__}, not an object with a "text".')
    if not isinstance(record.get("text"), str):
        found = (
            f'its "text" is {type(record["text"]).__name__}' if "text" in record else f"its fields are {sorted(record)}"
        )
        raise ConfigurationError(f'{where} has no text: {found}.\n  Each line must be an object with a string "text".')
    text = record["text"]
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{where} holds half of a surrogate pair (character {error.start} of its text), which is not Unicode text."
        ) from error
    plain = {
        key: value
        for key, value in record.items()
        if key not in ("id", "text") and (value is None or isinstance(value, str | int | float))
    }
    return Document(str(record.get("id", default_name)), text, size, plain)


def _unicode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{where} is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}.\n  Convert the file to UTF-8."
        ) from error


def _tfds_documents(name: str) -> Iterator[Document]:
    import tensorflow_datasets as tfds

    data_set, _, split = name.partition("#")
    try:
        examples = tfds.as_numpy(tfds.load(data_set, split=split, shuffle_files=False, download=False))
    except Exception as error:  # TFDS raises many kinds; each means that this name cannot be read here
        raise ConfigurationError(
            f"the TFDS data set {name} cannot be read: {str(error).strip().splitlines()[0]}\n"
            "  It must have been downloaded and prepared already (TFDS_DATA_DIR says where)."
        ) from error
    for number, example in enumerate(examples):
        text = example.get("text") if isinstance(example, dict) else None
        if not isinstance(text, bytes):
            fields = sorted(example) if isinstance(example, dict) else type(example).__name__
            raise ConfigurationError(f'the TFDS data set {name} has no string feature "text"; it has {fields}.')
        found = example.get("id", str(number))
        where = f"{name}, example {number}"
        yield Document(
            _unicode(found, where) if isinstance(found, bytes) else str(found), _unicode(text, where), len(text), {}
        )


def _sha256(file: str) -> str:
    digest = hashlib.sha256()
    with epath.Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
