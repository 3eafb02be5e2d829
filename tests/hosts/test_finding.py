"""How processes find each other: each way, what JAX finds in the same surroundings, and half of the settings."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.hosts import finding
from cptjax.hosts.finding import find_processes

SETTINGS = {"JAX_COORDINATOR_ADDRESS": "a:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
SLURM = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "node[007-009,011],other2",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
GKE = {
    "TPU_WORKER_HOSTNAMES": "job-0.svc,job-1.svc,job-2.svc",
    "TPU_WORKER_ID": "1",
    "TPU_SKIP_MDS_QUERY": "true",
}
SLICES = {
    "MEGASCALE_COORDINATOR_ADDRESS": "job-slice-0-0.svc:8080",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
}
METADATA = {
    "agent-worker-number": "2",
    "worker-network-endpoints": "unknown:unknown:10.0.0.4,unknown:unknown:10.0.0.5,unknown:unknown:10.0.0.6",
    "tpu-env": "ACCELERATOR_TYPE: 'v5p-24'\nWORKER_ID: '2'\n",
}
TWO_SLICES = METADATA | {
    "tpu-env": "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
}


@pytest.fixture
def metadata():
    """A function that serves attributes of a virtual machine, and returns the environment that names the server.

    `failing`: how often an attribute is refused with 503, or the connection closed (a negative number), before it is told.
    """
    served: dict[str, str] = {}
    failures: dict[str, int] = {}

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            if left := failures.get(name, 0):
                failures[name] -= 1 if left > 0 else -1
                if left > 0:
                    self.send_error(503)
                return
            text = served.get(name)
            ours = text is not None and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if ours else 404)
            self.end_headers()
            self.wfile.write((text or "").encode() if ours else b"no such attribute")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("localhost", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(attributes, failing=None):
        for ours, theirs in ((served, attributes), (failures, failing or {})):
            ours.clear()
            ours.update(theirs)
        return {"GCE_METADATA_IP": f"localhost:{server.server_port}"}

    yield serve
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_COORDINATOR_ADDRESS": ""},
        {**SETTINGS, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
    ],
)
def test_one_process_is_alone(environment):
    assert find_processes(environment, tpu=False) is None


def test_settings_go_before_all_else():
    found = find_processes(SLURM | GKE | SETTINGS, tpu=True)
    assert (found.address, found.count, found.index, found.by_jax) == ("a:1234", 4, 2, False)
    assert found.way == "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"


def test_an_address_of_ipv6_is_read_without_its_brackets_and_written_with_them():
    found = find_processes({**SETTINGS, "JAX_COORDINATOR_ADDRESS": "[fd00::1]:1234"}, tpu=False)
    assert (found.host, found.port, found.address) == ("fd00::1", 1234, "[fd00::1]:1234")


def test_the_index_of_a_kubernetes_job_is_that_of_the_process():
    given = {**SETTINGS, "JOB_COMPLETION_INDEX": "3"}
    del given["JAX_PROCESS_ID"]
    found = find_processes(given, tpu=False)
    assert found.index == 3 and "JOB_COMPLETION_INDEX" in found.way


def jax_finds(environment, monkeypatch, tpu):
    """(address, count, index, GPUs of this process) as JAX itself finds them."""
    from jax._src import clusters
    from jax._src.clusters import cloud_tpu_cluster

    with monkeypatch.context() as patch:
        patch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", tpu)
        patch.setattr(cloud_tpu_cluster.BaseTpuCluster, "wait_for_coordinator", lambda *_: None)
        return clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)


@pytest.mark.parametrize("environment", [SLURM, {**SLURM, "SLURM_STEP_NODELIST": "one"}, GKE, GKE | SLICES], ids=str)
def test_what_is_found_is_what_jax_finds(environment, metadata, monkeypatch):
    pytest.importorskip("requests")  # JAX asks the metadata by it
    environment = {**environment, **metadata({"tpu-env": ""})}  # of slices that GKE's variables do not tell of
    found = find_processes(environment, tpu=True)
    *theirs, gpus = jax_finds(environment, monkeypatch, tpu="TPU_WORKER_ID" in environment)
    assert [found.address, found.count, found.index] == theirs and found.by_jax
    assert gpus == (
        [0] if "SLURM_LOCALID" in environment else None
    )  # which tests/sharding/test_slurm_devices.py is about


@pytest.mark.parametrize("attributes", [METADATA, TWO_SLICES], ids=["one slice", "two slices"])
def test_a_tpu_vm_is_asked_as_jax_asks_it(attributes, metadata, monkeypatch):
    pytest.importorskip("requests")  # JAX asks by it
    environment = metadata(attributes)
    found = find_processes(environment, tpu=True)
    assert (found.address, found.count, found.index, None) == jax_finds(environment, monkeypatch, tpu=True)
    assert "metadata" in found.way and find_processes(environment, tpu=False) is None
    assert found.hosts == (("10.0.0.4", "10.0.0.5", "10.0.0.6") if attributes is METADATA else ())


def test_a_tpu_vm_that_is_no_part_of_a_pod_is_alone(metadata):
    assert find_processes(metadata({}), tpu=True) is None
    assert (
        find_processes(metadata({**METADATA, "agent-worker-number": "0", "worker-network-endpoints": "a"}), tpu=True)
        is None
    )


@pytest.mark.parametrize("key", ["agent-worker-number", "worker-network-endpoints", "tpu-env"])
@pytest.mark.parametrize("times", [2, -2])
def test_a_server_that_fails_now_and_then_is_asked_again(metadata, monkeypatch, key, times):
    monkeypatch.setattr(finding, "_RETRY_SECONDS", 0.01)
    assert find_processes(metadata(TWO_SLICES, {key: times}), tpu=True).count == 6


@pytest.mark.parametrize("key", ["worker-network-endpoints", "tpu-env"])
@pytest.mark.parametrize("times", [100, -100])
def test_what_cannot_be_read_is_an_error_and_not_a_run_of_one_process(metadata, monkeypatch, key, times):
    monkeypatch.setattr(finding, "_RETRY_SECONDS", 0.01)
    with pytest.raises(CptjaxError, match=f"attributes/{key}") as failed:
        find_processes(metadata(TWO_SLICES, {key: times}), tpu=True)
    assert failed.value.exit_code == 1  # start it again: nothing was wrong with the command


def test_where_no_server_is_there_is_one_process(monkeypatch):
    monkeypatch.setattr(finding, "_RETRY_SECONDS", 0.01)
    assert find_processes({"GCE_METADATA_IP": "localhost:1"}, tpu=True) is None


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"JAX_NUM_PROCESSES": "2"}, ["JAX_COORDINATOR_ADDRESS = None", "JAX_PROCESS_ID = None"]),
        ({**SETTINGS, "JAX_PROCESS_ID": ""}, ["JAX_PROCESS_ID = ''", "counted from 0"]),
        ({**SETTINGS, "JAX_PROCESS_ID": "4"}, ["JAX_PROCESS_ID = '4'", "one of 4"]),
        ({**SETTINGS, "JAX_NUM_PROCESSES": "two"}, ["JAX_NUM_PROCESSES = 'two'"]),
        ({**SETTINGS, "JAX_COORDINATOR_ADDRESS": "a"}, ["JAX_COORDINATOR_ADDRESS = 'a'", "host:port"]),
        ({**SLURM, "SLURM_PROCID": ""}, ["SLURM_STEP_NUM_TASKS = '5'", "SLURM_PROCID is not set"]),
        ({**SLURM, "SLURM_NTASKS": "8"}, ["started 5 tasks", "SLURM_NTASKS = 8"]),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, ["TPU_WORKER_ID is not set"]),
        ({**GKE, "TPU_WORKER_ID": "3"}, ["worker 3", "job-0.svc"]),
        ({**GKE, "MEGASCALE_COORDINATOR_ADDRESS": "a"}, ["MEGASCALE_NUM_SLICES and MEGASCALE_SLICE_ID are not set"]),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a", **SLICES}, ["TPU_WORKER_HOSTNAMES and TPU_WORKER_ID are not set"]),
        ({**GKE, **SLICES, "MEGASCALE_SLICE_ID": "2"}, ["MEGASCALE_SLICE_ID = 2", "one of 2"]),
    ],
)
def test_half_of_the_settings_is_refused_by_name(environment, words):
    with pytest.raises(ConfigurationError) as refused:
        find_processes(environment, tpu=False)
    assert all(word in str(refused.value) for word in words), str(refused.value)
