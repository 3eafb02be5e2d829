"""How the processes of a run find each other: by the environment's JAX_* settings, Slurm, GKE, or a TPU VM's metadata.

Where JAX finds the others by itself, it is JAX that does (`jax.distributed.initialize()`); here the same is read so that a
supervisor, which never imports JAX, knows who belongs to the run, and so that half of the settings is refused by name.
"""

import dataclasses
import glob
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from cptjax.errors import ConfigurationError, CptjaxError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_JOB_INDEX = "JOB_COMPLETION_INDEX"  # of an Indexed Job, which Kubernetes sets in each of its pods
_PORT = "JAX_COORDINATOR_PORT"
_TPU_PORT = 8482  # JAX's own choice on Cloud TPU
_SLURM_PORTS = 2**12  # JAX takes the last so many ports in turn, by the job's number
_METADATA_SECONDS, _METADATA_TRIES, _RETRY_SECONDS = 10.0, 6, 0.5  # tries as often as JAX
_GOOGLE, _NO_TPU = "0x1ae0", ("0x0042", "0x001f")  # the PCI vendor; its network card and its disk


@dataclasses.dataclass(frozen=True)
class Found:
    """The processes of a run, and which of them this one is.

    Attributes:
        way: how they were found, in words.
        host, port: where JAX's coordinator is: in the process of index 0.
        count, index: how many processes there are, and which this is, from 0.
        hosts: the host of each process, by index, as far as the way tells: () or all of them.
        by_jax: whether JAX finds the same without being told.
    """

    way: str
    host: str
    port: int
    count: int
    index: int
    hosts: tuple[str, ...] = ()
    by_jax: bool = True

    @property
    def address(self) -> str:
        """host:port of JAX's coordinator."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def find_processes(environment: Mapping[str, str] | None = None, tpu: bool | None = None) -> Found | None:
    """What the surroundings say of a run on several processes; None where there is one.

    The first that applies: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; Slurm's srun; GKE's
    TPU_WORKER_HOSTNAMES and MEGASCALE_*; the metadata of a Cloud TPU VM.

    Args:
        environment: variables; None: ours.
        tpu: whether this machine has TPU chips; None: looked up among its PCI devices.

    Raises:
        ConfigurationError: half of the settings are there, or one is no number that it can be; the message names them.
        CptjaxError: the metadata of a TPU VM cannot be read.
    """
    environment = os.environ if environment is None else environment
    found = _by_settings(environment) or _by_slurm(environment) or _by_gke(environment)
    if found is None and "TPU_SKIP_MDS_QUERY" not in environment and (has_tpu() if tpu is None else tpu):
        found = _by_metadata(environment)
    return found if found is not None and found.count > 1 else None


def _by_settings(environment: Mapping[str, str]) -> Found | None:
    given = {name: environment[name] for name in (ADDRESS, COUNT, INDEX) if environment.get(name)}
    if not given:
        return None
    way = ", ".join(given)
    if INDEX not in given and environment.get(_JOB_INDEX):
        given[INDEX] = environment[_JOB_INDEX]
        way += f" and {_JOB_INDEX}"
    if missing := [name for name in (ADDRESS, COUNT, INDEX) if name not in given]:
        raise ConfigurationError(
            f"{', '.join(f'{name} = {value!r}' for name, value in given.items())}, but "
            f"{' and '.join(f'{name} = {environment.get(name)!r}' for name in missing)}.\n"
            f"  Several processes need all three: host:port of the first process ({ADDRESS}), how many there are ({COUNT}),\n"
            f"  and which of them this is, counted from 0 ({INDEX}); or unset them all, and this is a run of one process."
        )
    host, colon, port = given[ADDRESS].rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigurationError(f"{ADDRESS} = {given[ADDRESS]!r}: write host:port of the first process.")
    count, index = _number(given, COUNT, 1), _number(given, INDEX, 0)
    _check_index(index, count, f"{INDEX} = {given[INDEX]!r}", f"{COUNT} = {given[COUNT]!r}")
    return Found(way, host.removeprefix("[").removesuffix("]"), int(port), count, index, by_jax=False)


def _by_slurm(environment: Mapping[str, str]) -> Found | None:
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "")
    if not (tasks.isdigit() and int(tasks) > 1):  # srun sets it; a batch script outside of srun is one process
        return None
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    _refuse_half(environment, "SLURM_STEP_NUM_TASKS", names)
    count, index = _number(environment, "SLURM_NTASKS", 1), _number(environment, "SLURM_PROCID", 0)
    if count != int(tasks):
        raise ConfigurationError(
            f"srun started {tasks} tasks (SLURM_STEP_NUM_TASKS), but SLURM_NTASKS = {count}, which is what JAX goes by.\n"
            "  Start as many tasks as the allocation has: srun without --ntasks, or with the same number."
        )
    job = _number(environment, "SLURM_JOB_ID", 0)
    port = _port(environment, 2**16 - _SLURM_PORTS + job % _SLURM_PORTS)
    nodes = environment["SLURM_STEP_NODELIST"]
    first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if first is None:
        raise ConfigurationError(f"SLURM_STEP_NODELIST = {nodes!r} names no node.")
    return Found("Slurm's srun", first[1] + (first[2] or ""), port, count, index)


def _by_gke(environment: Mapping[str, str]) -> Found | None:
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    if "," not in hosts and not environment.get("MEGASCALE_COORDINATOR_ADDRESS"):
        return None
    names = ["TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"]
    if environment.get("MEGASCALE_COORDINATOR_ADDRESS"):
        names += ["MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"]
    _refuse_half(environment, "MEGASCALE_COORDINATOR_ADDRESS" if "," not in hosts else "TPU_WORKER_HOSTNAMES", names)
    slices = "MEGASCALE_NUM_SLICES" in names
    return _tpu_slices(
        "the variables that GKE sets (TPU_WORKER_HOSTNAMES" + (", MEGASCALE_*)" if slices else ")"),
        tuple(host.strip() for host in hosts.split(",")),
        _number(environment, "TPU_WORKER_ID", 0),
        environment if slices else {},
        _port(environment, _TPU_PORT),
    )


def _by_metadata(environment: Mapping[str, str]) -> Found | None:
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    worker = _metadata(server, "agent-worker-number", needed=False)
    if worker is None:  # a TPU in a container that GKE or Colab runs, or one that is no part of a pod
        return None
    endpoints = _metadata(server, "worker-network-endpoints") or ""
    hosts = tuple(part.split(":")[-1].strip() for part in endpoints.split(","))  # host, or name:id:host
    lines = (line.partition(":") for line in (_metadata(server, "tpu-env") or "").splitlines())
    described = {name.strip(): value.strip().strip("'") for name, _, value in lines}
    slices = {name: described[name] for name in described if name.startswith("MEGASCALE_") and described[name]}
    slices |= {name: environment[name] for name in environment if name.startswith("MEGASCALE_")}
    way, port = f"the TPU VM's metadata (http://{server})", _port(environment, _TPU_PORT)
    return _tpu_slices(way, hosts, _number({"agent-worker-number": worker}, "agent-worker-number", 0), slices, port)


def _tpu_slices(way: str, hosts: tuple[str, ...], worker: int, slices: Mapping[str, str], port: int) -> Found:
    """Processes of `hosts`, the workers of one slice, times the slices; numbered slice by slice, as JAX does."""
    count = _number(slices, "MEGASCALE_NUM_SLICES", 1) if slices.get("MEGASCALE_NUM_SLICES") else 1
    ours = _number(slices, "MEGASCALE_SLICE_ID", 0) if slices.get("MEGASCALE_SLICE_ID") else 0
    _check_index(worker, len(hosts), f"worker {worker} of this slice", f"its hosts are {', '.join(hosts)}")
    _check_index(ours, count, f"MEGASCALE_SLICE_ID = {ours}", f"MEGASCALE_NUM_SLICES = {count}")
    first = slices.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]
    known = hosts if count == 1 else ()
    return Found(way, first.split(":")[0], port, len(hosts) * count, ours * len(hosts) + worker, known)


def _refuse_half(environment: Mapping[str, str], given: str, names: list[str] | tuple[str, ...]) -> None:
    if missing := [name for name in names if not environment.get(name)]:
        raise ConfigurationError(
            f"{given} = {environment.get(given)!r} says that there are several processes, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set.\n"
            f"  Set {'it' if len(missing) == 1 else 'them'} too; or set {ADDRESS}, {COUNT} and {INDEX}, which go before all else."
        )


def _check_index(index: int, count: int, what: str, of: str) -> None:
    if not 0 <= index < count:
        raise ConfigurationError(f"{what}, but {of}: it is one of {count}, counted from 0.")


def _number(environment: Mapping[str, str], name: str, minimum: int) -> int:
    text = environment[name].strip()
    if not text.isdigit() or int(text) < minimum:
        raise ConfigurationError(f"{name} = {environment[name]!r}: it is a whole number from {minimum} on.")
    return int(text)


def _port(environment: Mapping[str, str], otherwise: int) -> int:
    return _number(environment, _PORT, 1) if environment.get(_PORT) else otherwise


def _metadata(server: str, key: str, needed: bool = True) -> str | None:
    """An attribute of this virtual machine; None where it has none, or, if it is not `needed`, where no server answers at all.

    Raises:
        CptjaxError: the server fails, time after time; a host that took that for "there is none" would run alone.
    """
    url = f"http://{server}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy knows this machine's metadata
    tries_left = _METADATA_TRIES
    while True:
        tries_left -= 1
        try:
            with direct.open(request, timeout=_METADATA_SECONDS) as answer:
                return answer.read().decode("utf-8")
        except (OSError, http.client.HTTPException) as error:
            answered = isinstance(error, urllib.error.HTTPError)
            if answered:
                error.close()
            if answered and error.code == 404:
                return None
            if tries_left:
                time.sleep(_RETRY_SECONDS)
                continue
            if not (needed or answered):
                return None
            raise CptjaxError(
                f"the metadata of this TPU VM cannot be read, which say who belongs to the run: {url}: {error} "
                f"({_METADATA_TRIES} times).\n  Start the command again; or set {ADDRESS}, {COUNT} and {INDEX}."
            ) from error


def has_tpu() -> bool:
    """Whether a PCI device of this machine is a TPU."""
    for vendor in glob.glob("/sys/bus/pci/devices/*/vendor"):
        if _text(vendor) == _GOOGLE and _text(str(Path(vendor).with_name("device"))) not in _NO_TPU:
            return True
    return False


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
