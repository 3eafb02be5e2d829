"""Ports for tests that start several processes."""

import socket

from cptjax.hosts.lines import roll_call_port


def free_port() -> int:
    """A port for JAX's coordinator that is free on this machine, and whose supervisor's is free, too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("localhost", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("", roll_call_port(port)))
            except OSError:
                continue
            return port
