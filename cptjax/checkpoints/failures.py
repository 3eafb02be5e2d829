"""What went wrong with a checkpoint, in words for people, and the same words on every host."""

import errno
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint
from etils import epath

from cptjax.checkpoints.digests import DIGESTS, Damage, UnreadableDigests, find_damage, read_digests
from cptjax.errors import CptjaxError
from cptjax.files import is_local

_LINE = 400  # characters of a foreign error that are shown
_ORBAX = str(Path(orbax.checkpoint.__file__).parent)


def quiet_orbax() -> None:
    """Keeps Orbax from logging its errors, screens of tracebacks each: it raises them as well, and we report those.

    When one array cannot be written, TensorStore's threads still call back for the others, into a loop that Orbax has
    closed by then, and print what comes of it.
    """
    logging.getLogger("absl").addFilter(_not_from_orbax)
    logging.getLogger("asyncio").addFilter(_not_of_orbax)
    if not isinstance(sys.unraisablehook, _WithoutLateCallbacks):
        sys.unraisablehook = _WithoutLateCallbacks(sys.unraisablehook)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return not record.pathname.startswith(_ORBAX)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.getMessage()


class _WithoutLateCallbacks:
    """An unraisablehook that passes on all but what a thread of TensorStore says of a loop that was closed."""

    def __init__(self, before: Callable):
        self.before = before

    def __call__(self, late: Any) -> None:
        if not (late.exc_type is RuntimeError and str(late.exc_value) == "Event loop is closed"):
            self.before(late)


def first_damage_on_any_host(folder: epath.Path) -> Damage | None:
    """The first damaged file of a checkpoint, by name, or None; each host reads its share, all return the same.

    Every process calls it (it is a collective when there are several).
    """
    try:
        digests = read_digests(folder)
    except UnreadableDigests as error:
        return Damage(DIGESTS, str(error))
    names = sorted(digests)
    found = find_damage(folder, digests, names[jax.process_index() :: jax.process_count()])
    if jax.process_count() == 1:
        return found[0] if found else None
    from jax.experimental import multihost_utils

    mine = names.index(found[0].file) if found else len(names)
    first = int(np.min(multihost_utils.process_allgather(np.int32(mine))))
    if first == len(names):
        return None
    return found[0] if first == mine else Damage(names[first], "is not what was written, as another host found")


def save_failed(folder: epath.Path, error: Exception) -> CptjaxError:
    """The error for a save into `folder`, one step's, that failed on this thread or in the background."""
    if isinstance(error, CptjaxError):
        return error
    what = f"The checkpoint of step {int(folder.name)} was not saved"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # TensorStore reports a full disk as a ValueError.
    if full or "No space left" in str(error) or "quota exceeded" in str(error).lower():
        free = f" ({_free_mebibytes(folder)} MiB are free)" if is_local(folder) else ""
        return CptjaxError(
            f"{what}: no space is left{free}.\n  {folder}\n"
            f"  The steps before it are as they were. Make room, or lower `keep`, and run the same command again."
        )
    if missing := _not_at_the_barrier(str(error)):
        one = len(missing) == 1
        return CptjaxError(
            f"{what}: process{'' if one else 'es'} {' and '.join(missing)} did not come to the end of it in time.\n  {folder}\n"
            f"  {'Its log' if one else 'Their logs'} may say why: a disk that is slow, or a wait for something else."
        )
    return CptjaxError(f"{what}: {type(error).__name__}: {first_line(error)}\n  {folder}")


def _not_at_the_barrier(message: str) -> list[str]:
    """The indices of the processes that JAX's coordination service says a barrier waited for in vain; [] for other errors."""
    _, _, names = message.partition("timed out task names:")
    return re.findall(r"^(?:\S*task:)?(\d+)$", names.partition("RPC:")[0], re.MULTILINE)


def first_line(error: Exception) -> str:
    """The first line of an error from elsewhere, cut where it gets long; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:_LINE]


def _free_mebibytes(folder: epath.Path) -> int:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free >> 20
