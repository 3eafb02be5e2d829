"""Programs compiled for TPUs on a machine that has none, each in a process of its own, and what is found in them kept.

libtpu reads its settings when it is first imported, some programs take its compiler down with them, and some never end: a
child process may do all that. What it found is one JSON file, so that a benchmark that is stopped goes on where it was.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.files import read_json, write_file
from cptjax.processes import child_environment, end_with_parent

# The smallest topology of each generation, and what its chips are to be: v4's two cores are one device, as on its pods.
TOPOLOGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "v4": ("v4:2x2x1", {"chip_config_name": "megacore"}),
    "v5e": ("v5e:2x2", {}),
    "v5p": ("v5p:2x2x1", {}),
    "v6e": ("v6e:2x2", {}),
    "tpu7x": ("tpu7x:2x2x1", {}),
}
# What libtpu and JAX are told, before they are imported, to compile on a machine without a TPU.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # nobody is asked over the network which machine this is
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",  # several compile at a time
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # what is read from a cache dumps nothing
}
_VERSIONS = ("jax", "libtpu")
_LINES, _LETTERS = 6, 400  # of a complaint that are kept


def check_libtpu() -> None:
    """Refuses to begin where nothing could be compiled.

    Raises:
        ConfigurationError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigurationError(
            "this benchmark compiles for TPUs ahead of time, and libtpu, which does that, is not installed.\n"
            '  pip install "cptjax[aot]"   (in a checkout: pip install -e ".[aot]"); no TPU is needed.'
        )


class Compiles:
    """What programs were found to be when they were compiled, each in a child process, now or in an earlier run."""

    def __init__(self, folder: epath.PathLike, seconds: float):
        """
        Args:
            folder: where results are kept: a file for each program, its settings, its source, and the compiler's version.
            seconds: how long a child may take.
        """
        self._folder, self._seconds = epath.Path(folder), seconds
        self._found: dict[str, dict[str, Any]] = {}

    def found(self, program: str, settings: Mapping[str, Any], source: str) -> dict[str, Any]:
        """What `program` ("module:function") returns in a child, called with `settings` and `dumps`, the folder of dumps.

        Args:
            settings: as JSON takes them; `generation`, a key of `TOPOLOGIES`, is one of them.
            source: a digest of the code that is compiled and of what reads its dumps (`digest_of`): what was found with
                other code is not taken for this one's.

        Returns:
            As JSON gives it back; {"refused": why} if the compiler refuses the program; {"failed": why} if the child
            crashed or took too long: that is not kept, and the next run tries again.
        """
        versions = {name: _version(name) for name in _VERSIONS}
        told = {"program": program, "settings": dict(settings), "source": source, "versions": versions}
        text = json.dumps(told, sort_keys=True)
        if text not in self._found:
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            name = f"{program.partition(':')[2]}-{settings['generation']}-{digest}"
            path = self._folder / f"{name}.json"
            kept = read_json(path)["found"] if path.exists() else None
            self._found[text] = kept or _run(told, self._seconds)
            if kept is None and "failed" not in self._found[text]:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_file(path, json.dumps({**told, "found": self._found[text]}, indent=1) + "\n")
        return self._found[text]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def digest_of(*modules: str) -> str:
    """Of the source of these modules, and of those in them if they are packages."""
    digest = hashlib.sha256()
    for module in modules:
        place = Path(importlib.util.find_spec(module).origin)
        for path in sorted(place.parent.glob("*.py")) if place.name == "__init__.py" else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _run(told: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """One child, to its end or until its time is over."""
    with tempfile.TemporaryDirectory(prefix="cptjax-dumps-") as dumps:
        dump = f"--xla_jf_dump_to={dumps} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final.*"
        own = os.environ.get("LIBTPU_INIT_ARGS", "")
        child = subprocess.Popen(
            [sys.executable, "-m", "cptjax.benchmarks.ahead_of_time", json.dumps({**told, "dumps": dumps})],
            env=child_environment({**ENVIRONMENT, "LIBTPU_INIT_ARGS": f"{own} {dump}".strip()}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        try:
            printed, complaint = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"it took more than {seconds:.0f} s"}
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
    if child.returncode == 0:
        return json.loads(printed.splitlines()[-1])
    ended = (
        f"signal {signal.Signals(-child.returncode).name}" if child.returncode < 0 else f"exit code {child.returncode}"
    )
    return {"failed": "\n".join([ended, *complaint.splitlines()[-_LINES:]])}


def _main(told: Mapping[str, Any]) -> dict[str, Any]:
    """In the child: calls the function; what the compiler says of a program that it refuses is a result too."""
    import jax

    module, _, name = told["program"].partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        return function(**told["settings"], dumps=told["dumps"])
    except jax.errors.JaxRuntimeError as error:
        return {"refused": "\n".join(str(error).splitlines()[:_LINES])[:_LETTERS]}


def devices_of(generation: str) -> list[Any]:
    """The devices of the smallest topology of this generation, to compile for."""
    from jax.experimental import topologies

    name, how = TOPOLOGIES[generation]
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **how).devices)


if __name__ == "__main__":
    end_with_parent()
    print(json.dumps(_main(json.loads(sys.argv[1]))))
