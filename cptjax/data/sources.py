"""Where text comes from: files (readers.py says of which kinds), Hugging Face dataset folders, Megatron's token caches, TFDS
(the only one to need TensorFlow), and the Python packages installed here.

A source is written as a path, a glob, a folder, or a list of these (`#split` may follow a folder of several splits); as
`tfds:name/config:version` (`#split` may follow, `train` if it does not); as `megatron:prefix`; or as `python:documentation`,
`python:source`, `python:descriptions` (`#bytes` may follow, or `#from:to`). `Text`, or a dict of its fields, says more: a
template, what to do with bad records, what of a held-out document counts.
"""

import dataclasses
import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from etils import epath

from cptjax.data.document import Document
from cptjax.data.installed import PYTHON, identity, installed_documents, parse_name
from cptjax.data.local import files_under
from cptjax.data.megatron import MEGATRON, cache_files, cached_documents
from cptjax.data.readers import LINES, SUFFIXES, TABLES, Record, file_records
from cptjax.data.records import BEGINNING, BadRecords, Place, RecordSettings, as_written, documents_of
from cptjax.data.text_digests import file_digest
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.files import read_json

TFDS = "tfds:"
SELECTION, SELECTED = (
    "selection.json",
    "selected.jsonl.gz",
)  # of a folder that select_data wrote: its record, and its text
# Files of other kinds beside text, which a folder may hold and a source may not name.
_BINARY = (".zip", ".tar", ".tgz", ".bz2", ".xz", ".bin", ".idx", ".npy", ".tfrecord", ".array_record")
_SPLIT = re.compile(r"(?:^|[/_.-])(train|validation|valid|val|dev|test)(?=[/_.-])")  # as data sets' files are named


@dataclasses.dataclass(frozen=True)
class Text(RecordSettings):
    """A source of which more is said than where it is: `where` is a path, a glob, a list of them, or a name with a colon."""

    where: str | Sequence[str] = ()


Where = str | Sequence[str] | Text | Mapping[str, object]


def as_plain(where: Where) -> object:
    """How a source was written, as JSON holds it."""
    if isinstance(where, Text):
        return {"Text": as_written(where)}
    if isinstance(where, Mapping):
        return dict(where)
    return list(where) if isinstance(where, list | tuple) else where


def from_plain(written: object) -> Where:
    """What `as_plain` was given."""
    return Text(**written["Text"]) if isinstance(written, dict) and "Text" in written else written


def paths_of(where: Where) -> str | Sequence[str]:
    """Where the text is, without what else is said of it."""
    return where.where if isinstance(where, Text) else where["where"] if isinstance(where, Mapping) else where


@dataclasses.dataclass(frozen=True)
class Source:
    """A named source: its files in a fixed order, a TFDS data set, a token cache, or a kind of text of the installed packages.

    files: of a token cache its .bin and .idx.
    """

    name: str
    files: Sequence[str] = ()
    tfds: str | None = None
    python: str | None = None
    megatron: str | None = None
    settings: RecordSettings = RecordSettings()

    @property
    def where(self) -> str:
        """In a few words."""
        if self.tfds or self.python or self.megatron:
            return self.tfds or self.megatron or PYTHON + self.python
        return self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"

    @classmethod
    def from_json(cls, found: dict) -> "Source":
        """The source of `dataclasses.asdict`."""
        return cls(**{**found, "settings": RecordSettings(**found["settings"])})


def find_source(name: str, where: Where) -> Source:
    """Resolves paths, globs and folders to files.

    Raises:
        ConfigurationError: a bad name, a path or glob that matches nothing, a kind of file that cannot be read.
    """
    if not name or not all(letter.isalnum() or letter in "_-." for letter in name) or name.startswith("."):
        raise ConfigurationError(f"{name!r} cannot name a source: use letters, digits, '_', '-' and '.'.")
    settings = RecordSettings()
    if isinstance(where, Mapping):
        where = _text_of(name, where)
    if isinstance(where, Text):
        settings = RecordSettings(
            **{each.name: getattr(where, each.name) for each in dataclasses.fields(RecordSettings)}
        )
        where = where.where
    given = [where] if isinstance(where, str | os.PathLike) else where
    if not isinstance(given, list | tuple) or not all(isinstance(one, str | os.PathLike) for one in given):
        raise ConfigurationError(
            f"source {name!r} is {where!r}: write a path, a glob, a list of them, 'tfds:...', 'megatron:...' or 'python:...'."
        )
    given = [str(item) for item in given]
    if named := [item for item in given if item.startswith((TFDS, PYTHON, MEGATRON))]:
        if len(given) > 1:
            raise ConfigurationError(f"source {name!r}: {named[0]} stands alone, not in a list with others: {given}.")
        if settings.template is not None and not named[0].startswith(TFDS):
            raise ConfigurationError(
                f"source {name!r}: {named[0]} has no records with fields that a template could name."
            )
        if named[0].startswith(PYTHON):
            return Source(name, python=parse_name(name, named[0]), settings=settings)
        if named[0].startswith(MEGATRON):
            return Source(name, _cache(name, named[0]), megatron=named[0].removeprefix(MEGATRON), settings=settings)
        return Source(name, tfds=_tfds_name(name, named[0]), settings=settings)
    files = [file for item in given for file in _files(name, item)]
    if not files:
        raise ConfigurationError(f"source {name!r} has no files: its list of paths is empty.")
    return Source(name, tuple(dict.fromkeys(files)), settings=settings)


def _text_of(name: str, fields: Mapping[str, object]) -> Text:
    known = [each.name for each in dataclasses.fields(Text)]
    if unknown := [each for each in fields if each not in known]:
        raise ConfigurationError(f"source {name!r} says {unknown[0]!r}; what can be said of one: {', '.join(known)}.")
    if not fields.get("where"):
        raise ConfigurationError(f"source {name!r} does not say where its text is: {{'where': a path, ...}}.")
    return Text(**fields)


def documents(source: Source, tokenizer: Tokenizer | None = None, bad: BadRecords | None = None) -> Iterator[Document]:
    """The source's documents in a fixed order; see `placed_documents`."""
    return (document for _, document in placed_documents(source, tokenizer, bad))


def placed_documents(
    source: Source, tokenizer: Tokenizer | None = None, bad: BadRecords | None = None, start: Place = BEGINNING
) -> Iterator[tuple[Place, Document]]:
    """The source's documents in a fixed order, and where each is; those with empty text are passed over.

    Args:
        tokenizer: what a token cache is written out with.
        bad: counts the malformed records that the source's settings pass over.
        start: where to begin: the place of a document that an earlier reading gave.

    Raises:
        ConfigurationError: a malformed record, named by file and line; text that is missing, no string, or not Unicode.
        CptjaxError: a damaged file.
    """
    bad = bad or BadRecords()
    if source.python:
        return _placed(itertools.islice(installed_documents(source.python), start.record, None), start.record)
    if source.megatron:
        if tokenizer is None:
            raise ConfigurationError(f"source {source.name!r} is a token cache, which has no text of its own.")
        return _placed(cached_documents(source.megatron, tokenizer, start.record), start.record)
    records = _tfds_records(source.tfds, start) if source.tfds else records_of_files(source.files, start)
    return documents_of(records, source.settings, bad, source.name)


def _placed(read: Iterable[Document], first: int) -> Iterator[tuple[Place, Document]]:
    return ((Place(0, number), document) for number, document in enumerate(read, first) if document.text)


def content_identity(source: Source, again: bool = False) -> list[dict[str, str]]:
    """Name and sha256 of each file; for TFDS its name, which carries the version; for packages all their files as one.

    again: large files too are hashed, whatever is known of them (text_digests.py).
    """
    if source.python:
        return [{"name": PYTHON + source.python, "sha256": identity(source.python)}]
    if source.tfds:
        return [{"name": source.tfds, "sha256": hashlib.sha256(source.tfds.encode()).hexdigest()}]
    return [{"name": epath.Path(file).name, "sha256": file_digest(file, again)} for file in source.files]


def _files(name: str, item: str) -> list[str]:
    written, _, split = item.partition("#")
    path = epath.Path(item if epath.Path(item).expanduser().exists() else written).expanduser()
    if path.is_dir():
        return _folder_files(name, path, split)
    if any(letter in item for letter in "*?[") and not path.exists():
        pattern = str(epath.Path(item).expanduser())
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
            hint = "\n  A Megatron token cache is written megatron:prefix." if file.endswith((".bin", ".idx")) else ""
            raise ConfigurationError(
                f"source {name!r}: {file} is of a kind that is not read.\n"
                f"  Give {', '.join(SUFFIXES)} files, or a TFDS name (tfds:name/config:version).{hint}"
            )
    return found


def _folder_files(name: str, path: epath.Path, split: str) -> list[str]:
    """The files of a folder: of text, or a Hugging Face data set (saved by `save_to_disk`, or as on the hub)."""
    if (path / "dataset_dict.json").exists():
        splits = read_json(path / "dataset_dict.json")["splits"]
        _refuse_unnamed_split(name, path, split, splits)
        path, split = path / split, ""
    if (path / SELECTION).exists():
        return [str(path / SELECTED)]
    if (path / "state.json").exists():
        return [str(path / each["filename"]) for each in read_json(path / "state.json")["_data_files"]]
    found = [str(file) for file in files_under(path) if file.name.endswith(SUFFIXES)]
    tables, lines = ([file for file in found if file.endswith(kinds)] for kinds in (TABLES, LINES))
    if tables and lines:
        raise ConfigurationError(
            f"source {name!r}: the folder {path} holds both {tables[0]} and {lines[0]}: which is meant?\n"
            "  Name the files by a glob, or a list of them."
        )
    if tables:  # beside a data set's tables, its README is no text
        found = tables
    by_split = {file: match[1] for file in tables + lines if (match := _SPLIT.search(file[len(str(path)) :]))}
    splits = list(dict.fromkeys(by_split.values()))
    if (split and splits) or len({by_split.get(file) for file in tables + lines}) > 1:
        _refuse_unnamed_split(name, path, split, splits)
        found = [file for file in found if by_split.get(file) == split]
    elif split:
        raise ConfigurationError(
            f"source {name!r}: the folder {path} is no data set of several splits: leave #{split} out."
        )
    if not found:
        raise ConfigurationError(f"source {name!r}: the folder {path} holds no {', '.join(SUFFIXES)} file.")
    return found


def _refuse_unnamed_split(name: str, path: epath.Path, split: str, splits: Sequence[str]) -> None:
    if split not in splits:
        raise ConfigurationError(
            f"source {name!r}: the data set {path} has the splits {', '.join(splits) or '(none)'}, "
            f"and {split or 'none'} is named.\n  Write the one to read behind it: {path}#{next(iter(splits), 'train')}"
        )


def _cache(name: str, item: str) -> tuple[str, str]:
    files = cache_files(item.removeprefix(MEGATRON))
    if gone := [file for file in files if not epath.Path(file).exists()]:
        raise ConfigurationError(f"source {name!r}: there is no {gone[0]} (in {os.getcwd()}).")
    return files


def _tfds_name(name: str, item: str) -> str:
    written = item.removeprefix(TFDS)
    data_set, _, split = written.partition("#")
    if ":" not in data_set or data_set.endswith(":"):
        raise ConfigurationError(
            f"source {name!r}: {item} names no version, so its rows could not be told from another version's.\n"
            f"  Write it as tfds:name/config:version, for example {item}:1.0.0."
        )
    return f"{data_set}#{split or 'train'}"


def records_of_files(files: Sequence[str], start: Place) -> Iterator[tuple[Place, Record]]:
    """The records of `files` one after another from a place on, and where each is."""
    names = file_names(files)
    for number in range(start.file, len(files)):
        first = start.record if number == start.file else 0
        for at, record in enumerate(file_records(files[number], names[number], first), first):
            yield Place(number, at), record


def file_names(files: Sequence[str]) -> list[str]:
    """Each file's path below the folder that holds them all: what documents without an id of their own are named by."""
    if any("://" in file for file in files):
        return list(files)
    whole = [os.path.abspath(file) for file in files]
    folder = os.path.commonpath([os.path.dirname(file) for file in whole])
    return [os.path.relpath(file, folder) for file in whole]


def _tfds_records(name: str, start: Place) -> Iterator[tuple[Place, Record]]:
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
        if number >= start.record:
            fields = {key: _plain(value) for key, value in example.items()}
            yield Place(0, number), Record(f"{name}, example {number}", str(number), fields)


def _plain(value: object) -> object:
    """A TFDS feature as JSON would have it: its strings are bytes, its numbers numpy's."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value  # no text: what names it says so
    return value.tolist() if hasattr(value, "tolist") else value
