"""A sha256 for every file of a folder, written when the folder is whole and checked before it is believed.

Orbax restores flipped bits without noticing; with these it cannot. The list is also the mark of completeness: it is
written last, so a folder without one was never finished.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from cptjax.files import write_file

DIGESTS = "digests.json"
FORMAT = 1
_CHUNK = 4 << 20  # bytes read at a time
_THREADS = 8  # hashlib and file reads release the GIL


@dataclasses.dataclass(frozen=True)
class FileDigest:
    """What a file held when it was written: its length in bytes and the sha256 of them, in hexadecimal."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Damage:
    """A file that is not what it was: its path inside the folder, and what is wrong with it."""

    file: str
    reason: str


class UnreadableDigests(Exception):
    """The list of digests itself is damaged; the message says how."""


def digest_file(path: epath.Path) -> FileDigest:
    """Reads the file once, a few megabytes at a time."""
    sha256, length = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            length += len(chunk)
    return FileDigest(length, sha256.hexdigest())


def files_of(folder: epath.Path) -> list[str]:
    """Every file below `folder` but the digests, as sorted paths relative to it with forward slashes."""
    found = []
    pending = [(folder, "")]
    while pending:
        here, prefix = pending.pop()
        for entry in here.iterdir():
            if entry.is_dir():
                pending.append((entry, f"{prefix}{entry.name}/"))
            elif prefix or not entry.name.startswith(DIGESTS):
                found.append(prefix + entry.name)
    return sorted(found)


def write_digests(folder: epath.Path) -> None:
    """Digests every file below `folder` and marks the folder as whole by writing `digests.json` in it, last."""
    names = files_of(folder)
    with ThreadPoolExecutor(_THREADS) as threads:
        digests = list(threads.map(lambda name: digest_file(folder / name), names))
    files = {name: dataclasses.asdict(digest) for name, digest in zip(names, digests, strict=True)}
    write_file(folder / DIGESTS, json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")


def read_digests(folder: epath.Path) -> dict[str, FileDigest]:
    """The digests of a whole folder, by relative path.

    Raises:
        UnreadableDigests: `digests.json` is absent or is not what `write_digests` writes.
    """
    try:
        text = (folder / DIGESTS).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UnreadableDigests("is missing") from None
    except UnicodeDecodeError as error:
        raise UnreadableDigests(f"is not text ({error})") from error
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise UnreadableDigests(f"has format {content['format']!r}; this version reads {FORMAT}")
        return {name: FileDigest(int(entry["bytes"]), str(entry["sha256"])) for name, entry in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableDigests(f"is damaged ({error})") from error


def check_file(folder: epath.Path, name: str, expected: FileDigest) -> Damage | None:
    """Compares one file with its digest; the length first, because it says more to a person than a hash does."""
    path = folder / name
    try:
        length = path.stat().length
        if length != expected.bytes:
            return Damage(name, f"has {length} bytes; {expected.bytes} were written")
        found = digest_file(path)
    except FileNotFoundError:
        return Damage(name, "is missing")
    except OSError as error:
        return Damage(name, f"cannot be read ({error})")
    if found != expected:
        hashes = f"sha256 {found.sha256[:12]}, not {expected.sha256[:12]}"
        return Damage(name, f"holds other bytes than were written ({hashes})")
    return None


def find_damage(folder: epath.Path, digests: Mapping[str, FileDigest], names: Sequence[str]) -> list[Damage]:
    """The files among `names` that differ from their digests, in the order given."""
    with ThreadPoolExecutor(_THREADS) as threads:
        checked = threads.map(lambda name: check_file(folder, name, digests[name]), names)
        return [damage for damage in checked if damage is not None]


def first_damage(folder: epath.Path, names: Sequence[str] | None = None) -> Damage | None:
    """The first of the files `names` (default: all that were digested) that is not what it was, or None."""
    try:
        digests = read_digests(folder)
    except UnreadableDigests as error:
        return Damage(DIGESTS, str(error))
    for name in names or ():
        if name not in digests:
            return Damage(DIGESTS, f"does not name {name}")
    return next(iter(find_damage(folder, digests, sorted(digests) if names is None else names)), None)
