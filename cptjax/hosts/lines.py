"""The roll call over TCP: JSON objects, one a line, between each supervisor and that of the first process."""

import contextlib
import json
import queue
import socket
import struct
import threading
import time
from typing import Any

_LONGEST = 65536  # bytes of a line; whoever sends more is not one of us
_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_SEND_SECONDS = 5
_BIND_SECONDS = 5.0
_PORTS_APART = 4096
_SLURM_FROM, _SLURM_APART = (
    2**16 - 2**12,
    2**15,
)  # JAX's ports in jobs of Slurm, which are above those the system deals out

Events = queue.Queue[tuple["Line", dict[str, Any] | None]]


def roll_call_port(coordinator_port: int) -> int:
    """Where the first supervisor listens, by the port of JAX's coordinator. Not the next one: it may be another Slurm job's.

    Nor one of those that Linux gives to outgoing connections (32768 to 60999), as far as JAX chooses its own port.
    """
    if coordinator_port >= _SLURM_FROM:
        return coordinator_port - _SLURM_APART
    return coordinator_port + (_PORTS_APART if coordinator_port <= 2 * _PORTS_APART else -_PORTS_APART)


class Line:
    """One connection. What comes in goes to `events` as (line, object), and (line, None) once nothing more can come."""

    def __init__(self, connection: socket.socket, events: Events):
        """Begins to read, in a thread of its own."""
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Reading waits as long as it takes, sending does not; Python's own timeout would be both.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        self._connection, self._events, self._closed = connection, events, False
        threading.Thread(target=self._read, name="cptjax-roll-call", daemon=True).start()

    def send(self, **content: Any) -> None:
        """Sends an object. That the other end is gone is for the reader to find."""
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(content).encode() + b"\n")

    def close(self) -> None:
        """Ends the connection; what was sent still arrives."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as stream:
                while text := stream.readline(_LONGEST):
                    content = json.loads(text)
                    if not isinstance(content, dict):
                        break
                    self._events.put((self, content))
        except (OSError, ValueError, RecursionError):
            pass
        if not self._closed:
            self._events.put((self, None))


class Listener:
    """Takes connections at `port`, on all addresses of this host, until it is closed."""

    def __init__(self, port: int, events: Events):
        """Listens; a port that is in use may be so only for a moment.

        Raises:
            OSError: it is in use for longer.
        """
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        end = time.monotonic() + _BIND_SECONDS
        while True:
            try:
                self._server = socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(_RETRY_SECONDS)
        threading.Thread(target=self._accept, args=(events,), name="cptjax-roll-call", daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self, events: Events) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            Line(connection, events)


def call(host: str, port: int, seconds: float, events: Events, **hello: Any) -> None:
    """In the background: connects, trying for `seconds`, says `hello`, and puts (line, {"connected": true}) among the events."""

    def connect() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                connection = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
            except OSError:
                time.sleep(_RETRY_SECONDS)
                continue
            line = Line(connection, events)
            line.send(**hello)
            events.put((line, {"connected": True}))
            return

    threading.Thread(target=connect, name="cptjax-roll-call", daemon=True).start()
