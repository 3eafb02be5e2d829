"""A file that threads write at several places at once, through the system's cache of files or past it.

`cp` and Python's files copy what is written into memory of the system, which is fast while it has some: a virtual machine whose
host has taken its free memory back waits for it, up to seconds a gigabyte. Past the cache (O_DIRECT) a file is written at the
speed of its disk, and memory stays with what else needs it. Which is faster nobody says beforehand; so both are timed.
"""

import errno
import mmap
import os
import threading
import time

import numpy as np

_PAGE = max(
    4096, mmap.PAGESIZE
)  # what is written past the cache begins and ends at multiples of this, in memory and file
_TIMED = 1 << 20  # bytes from which a write says how fast a way is
_AGAIN = 32  # of so many writes one goes the way that was slower, in case it no longer is
_LATEST = 0.25  # the latest write's share of what is expected of the next


class Memory(threading.local):
    """Bytes that each thread has for itself, kept from one piece to the next: the system clears new ones, which takes time."""

    def __init__(self):
        self.bytes = np.empty(0, np.uint8)

    def of(self, size: int, place: int = 0) -> np.ndarray:
        """So many bytes, lying as far from the beginning of a page as `place` does in its file."""
        if self.bytes.size < size + _PAGE:
            self.bytes = np.empty(size + _PAGE, np.uint8)
        first = (place - self.bytes.ctypes.data) % _PAGE
        return self.bytes[first : first + size]


class PlacedFile:
    """An existing file, open for writing at any place by any thread; the way that is faster is found meanwhile."""

    def __init__(self, path: str):
        self._cached = os.open(path, os.O_WRONLY)
        self._direct = _open_past_cache(path)
        self._lock = threading.Lock()
        self._expected = {True: 0.0, False: 0.0}  # seconds a byte, past the cache and through it
        self._asked = 0
        self._refused = False

    def __enter__(self) -> "PlacedFile":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._cached)
        if self._direct is not None:
            os.close(self._direct)

    def past_cache(self) -> bool:
        """Whether the next write should go past the cache: then its bytes lie in memory made `of` its place."""
        with self._lock:
            if self._direct is None or self._refused:
                return False
            self._asked += 1
            faster = self._expected[True] <= self._expected[False]
            return faster != (self._asked % _AGAIN == 0)

    def write(self, values: np.ndarray, place: int, past_cache: bool) -> None:
        """Writes contiguous bytes at a place.

        Raises:
            OSError: the system refuses.
        """
        begin = time.perf_counter()
        first, last = -(-place // _PAGE) * _PAGE, (place + values.size) // _PAGE * _PAGE
        if past_cache and first < last:
            _write(self._cached, values[: first - place], place)  # pages that are shared with a neighbour
            self._write_pages(values[first - place : last - place], first)
            _write(self._cached, values[last - place :], last)
        else:
            _write(self._cached, values, place)
        if values.size >= _TIMED:
            with self._lock:
                seconds = (time.perf_counter() - begin) / values.size
                before = self._expected[past_cache]
                self._expected[past_cache] = before + _LATEST * (seconds - before) if before else seconds

    def _write_pages(self, values: np.ndarray, place: int) -> None:
        try:
            _write(self._direct, values, place)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._refused = True  # the disk's blocks are larger than a page, or it does not do this after all
            _write(self._cached, values, place)


def _open_past_cache(path: str) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except (AttributeError, OSError):  # a system or a kind of disk that has no such thing
        return None


def _write(descriptor: int, values: np.ndarray, place: int) -> None:
    rest = memoryview(values)
    while rest:  # a system may take less than it is given
        done = os.pwrite(descriptor, rest, place)
        rest, place = rest[done:], place + done
