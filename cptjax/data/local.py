"""Folders that may be remote (`gs://`) where a library wants local files: brought here once, or sent there."""

import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Sequence

from etils import epath

from cptjax.files import is_local


def files_under(folder: epath.Path) -> list[epath.Path]:
    """Every file in `folder` and the folders in it, in the order of their paths."""
    found = []
    for path in sorted(folder.iterdir()):
        found += files_under(path) if path.is_dir() else [path]
    return found


def local_copy(folder: str, fingerprint: str) -> str:
    """`folder` itself when local; else a copy of its files on this machine, made once for each `fingerprint`."""
    if is_local(folder):
        return str(folder)
    cache = epath.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "cptjax" / "rows"
    final = cache / fingerprint
    if not final.exists():
        aside = cache / f".{fingerprint}-{secrets.token_hex(4)}"
        aside.mkdir(parents=True)
        for path in epath.Path(folder).iterdir():
            if not path.is_dir():
                path.copy(aside / path.name)
        _rename_unless_there(aside, final)
    return str(final)


def staging_folder(final: str) -> epath.Path:
    """A fresh local folder to build `final` in: its hidden sibling when local, so that renaming it is atomic.

    What processes of this machine that are no more left behind for the same `final` is removed.
    """
    if not is_local(final):
        return epath.Path(tempfile.mkdtemp(prefix="cptjax-"))
    path = epath.Path(final)
    mine = f".{path.name}-{platform.node()}-"
    for left in path.parent.iterdir() if path.parent.exists() else ():
        if left.name.startswith(mine) and not _is_running(int(left.name.removeprefix(mine).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    aside = path.parent / f"{mine}{os.getpid()}-{secrets.token_hex(4)}"
    aside.mkdir(parents=True)
    return aside


def publish(aside: epath.Path, final: str, last: Sequence[str]) -> None:
    """Moves the finished `aside` to `final`, files named in `last` after all others; another process may have won."""
    if is_local(final):
        _rename_unless_there(aside, epath.Path(final))
        return
    files = sorted(files_under(aside), key=lambda path: path.name in last)
    for path in files:
        there = epath.Path(final) / path.relative_to(aside)
        there.parent.mkdir(parents=True, exist_ok=True)
        path.copy(there, overwrite=True)
    shutil.rmtree(aside)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # someone else's, and alive
    return True


def _rename_unless_there(aside: epath.Path, final: epath.Path) -> None:
    try:
        os.rename(aside, final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(aside)  # another process finished the same work first
