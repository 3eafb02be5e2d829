"""The persistent compilation cache, and what compiling a step took."""

import time

import jax
from etils import epath

_COMPILED = "/jax/core/compile/backend_compile_duration"  # also recorded when the program comes from the cache
_HIT = "/jax/compilation_cache/cache_hits"


def keep_compiled(folder: str | None) -> None:
    """Keeps compiled programs in `folder`, on a disk or in a bucket (gs://), for later starts; None: as JAX's environment says.

    Every process of a run names the same folder: the first alone writes to it.
    """
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(epath.Path(folder).expanduser()))


class Compilation:
    """What is compiled from the moment this is made until `stop`."""

    def __init__(self) -> None:
        """Begins to listen."""
        self.ended: float | None = None  # when the last program was ready, in seconds of time.time
        self._hits = 0
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)

    def stop(self) -> None:
        """Listens no more."""
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)

    @property
    def cache(self) -> str:
        """What the persistent cache was: "hit", "miss", or "off" where there is none."""
        if not jax.config.jax_compilation_cache_dir:
            return "off"
        return "hit" if self._hits else "miss"

    def _on_duration(self, name: str, seconds: float, **_: object) -> None:
        if name == _COMPILED:
            self.ended = time.time()

    def _on_event(self, name: str, **_: object) -> None:
        self._hits += name == _HIT
