"""The one way files are written, wherever they are: whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from cptjax.errors import CptjaxError


def write_file(path: epath.PathLike, content: str | bytes) -> None:
    """Writes `content` (text as UTF-8) so that a reader sees the whole old file or the whole new one, never a part."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with whole_file(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def whole_file(path: epath.PathLike) -> Iterator[IO[bytes]]:
    """A stream whose content becomes the file at `path` when the block ends, and not at all when it fails.

    Written aside, flushed to the disk where there is one, then renamed over `path`.
    """
    path = epath.Path(path)
    aside = path.parent / f"{path.name}.{os.getpid()}.part"
    try:
        with aside.open("wb") as stream:
            yield stream
            stream.flush()
            if is_local(path):
                os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what its reader needs to know
            aside.unlink(missing_ok=True)
        raise


def is_local(path: epath.PathLike) -> bool:
    """Whether `path` is on a file system of this machine (and not gs://, s3:// and their like)."""
    return "://" not in os.fspath(path)


def read_json(path: epath.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        CptjaxError: the file is missing, or is not JSON; the message names it.
    """
    path = epath.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CptjaxError(f"{path} is missing.") from None
    except ValueError as error:
        raise CptjaxError(f"{path} is damaged: it is not JSON ({error}).") from error
