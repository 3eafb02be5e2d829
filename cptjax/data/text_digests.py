"""sha256 of the files that text is read from. Large ones are hashed once, and known again by their size and time of change."""

import contextlib
import hashlib
import os
import time

from etils import epath

from cptjax.files import is_local, write_file

LARGE = 64 * 2**20  # bytes; smaller files are hashed whenever they are asked for
_SETTLED_SECONDS = 2.0  # a file that changed less long ago may change again within one tick of the file system's clock


def file_digest(file: str, again: bool = False) -> str:
    """sha256 of a file's bytes, as hexadecimal digits.

    Args:
        again: hash it in any case: for whoever does not want to rely on the time of change.
    """
    length, changed = _status(file)
    known = _known(file, length, changed) if length >= LARGE else None
    if known is not None and not again:
        with contextlib.suppress(OSError, UnicodeDecodeError):  # not hashed yet, or no place to keep it
            return known.read_text(encoding="utf-8").strip()
    began = time.time()
    digest = hashlib.sha256()
    with epath.Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if known is not None and began - changed > _SETTLED_SECONDS and _status(file) == (length, changed):
        with contextlib.suppress(OSError):
            known.parent.mkdir(parents=True, exist_ok=True)
            write_file(known, digest.hexdigest())
    return digest.hexdigest()


def _status(file: str) -> tuple[int, float]:
    """Bytes, and the time of the last change in seconds."""
    if is_local(file):
        status = os.stat(file)
        return status.st_size, status.st_mtime_ns / 1e9
    status = epath.Path(file).stat()
    return status.length, float(status.mtime)


def _known(file: str, length: int, changed: float) -> epath.Path:
    """Where the digest of this state of the file is kept."""
    where = os.path.abspath(file) if is_local(file) else file
    name = hashlib.sha256(f"{where}\n{length}\n{changed!r}".encode("utf-8", "surrogateescape")).hexdigest()
    cache = epath.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return cache / "cptjax" / "digests" / name
