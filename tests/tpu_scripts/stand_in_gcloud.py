"""A stand-in for gcloud, run as `gcloud` by the scripts under test: one queued resource, its workers as folders of this machine.

STAND_IN names its folder: `calls.jsonl` gets every call's arguments; `resource.json` is the queued resource; `workers/N-W` are the
homes of the workers, where `ssh --command` really runs its command by a shell; `bucket/` is gs://. `faults.json` lists what is
to go wrong: {"call": words that the call has, "skip": calls that pass, "times": 1} and one of
    "status" with "stderr"     gcloud refuses
    "repeat"                   the command is run twice, as gcloud does after a broken connection
    "unreached"                a worker is passed over, with code 0, as gcloud does too
    "state"                    the resource is in that state from then on, its workers gone
"""

import json
import os
import re
import sys
from pathlib import Path

HERE = Path(os.environ["STAND_IN"])
RESOURCE, FAULTS, WORKERS = HERE / "resource.json", HERE / "faults.json", HERE / "workers"


def main(arguments: list[str]) -> int:
    with (HERE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    fault = _fault(" ".join(arguments))
    if "state" in fault:
        _take_workers_away()
        RESOURCE.write_text(json.dumps(json.loads(RESOURCE.read_text()) | {"state": fault["state"]}))
    if "status" in fault:
        print(fault.get("stderr", "ERROR: on purpose"), file=sys.stderr)
        return fault["status"]
    flags = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    words = [word for word in arguments if not word.startswith("--")]
    match words:
        case ["compute", "tpus", "queued-resources", "create", name]:
            return _create(name, flags)
        case ["compute", "tpus", "queued-resources", "describe", name]:
            return _describe(name, flags["format"])
        case ["compute", "tpus", "queued-resources", "delete", name]:
            _take_workers_away()
            RESOURCE.unlink()
        case ["compute", "tpus", "queued-resources", "ssh", name]:
            repeats = 1 + ("repeat" in fault)
            homes = [home for home in _homes(flags) if home.name != fault.get("unreached")]
            return max(_ssh(home, flags["command"]) for _ in range(repeats) for home in homes)
        case ["compute", "tpus", "queued-resources", "scp", source, destination]:
            for home in _homes(flags):
                (home / destination.partition(":")[2]).write_bytes(Path(source).read_bytes())
        case ["compute", "tpus", "tpu-vm", "describe", node]:
            resource = json.loads(RESOURCE.read_text())
            assert node in resource["nodes"], node
            print(
                {"state": resource["node_state"], "networkEndpoints.len()": resource["workers"]}[
                    _field(flags["format"])
                ]
            )
        case ["storage", "objects", "describe", url]:
            print((HERE / "bucket" / url.removeprefix("gs://")).stat().st_size)
        case ["storage", "cat", url]:
            content = (HERE / "bucket" / url.removeprefix("gs://")).read_bytes()
            sys.stdout.buffer.write(content[int(flags["range"].rstrip("-")) :])
        case _:
            raise SystemExit(f"the stand-in knows no {arguments}")
    return 0


def _fault(call: str) -> dict:
    faults = json.loads(FAULTS.read_text()) if FAULTS.exists() else []
    for fault in faults:
        if all(word in call for word in fault["call"].split()) and fault.setdefault("times", 1) > 0:
            counter = "skip" if fault.get("skip", 0) > 0 else "times"
            fault[counter] -= 1
            FAULTS.write_text(json.dumps(faults))
            return {} if counter == "skip" else fault
    return {}


def _create(name: str, flags: dict[str, str]) -> int:
    assert not RESOURCE.exists(), "asked for twice"
    nodes = [flags["node-id"]] if "node-id" in flags else [f"{name}-{i}" for i in range(int(flags["node-count"]))]
    workers = 2 if len(nodes) == 1 else 1
    resource = {"name": name, "nodes": nodes, "kind": flags.get("accelerator-type", ""), "state": "ACTIVE"}
    resource |= {"topology": flags.get("topology", ""), "node_count": flags.get("node-count", "")}
    RESOURCE.write_text(json.dumps(resource | {"workers": workers, "node_state": "READY"}))
    for node in range(len(nodes)):
        for worker in range(workers):
            (WORKERS / f"{node}-{worker}").mkdir(parents=True)
    return 0


def _describe(name: str, form: str) -> int:
    if not RESOURCE.exists():
        print(
            f"ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: '{name}' was not found", file=sys.stderr
        )
        return 1
    resource = json.loads(RESOURCE.read_text())
    nodes = "\n".join(resource["nodes"])
    fields = {"state.state": resource["state"], "tpu.nodeSpec[].nodeId": nodes, "state": "state: on purpose"}
    fields |= {
        "tpu.nodeSpec[0].node.acceleratorType": resource["kind"],
        "tpu.nodeSpec[0].node.acceleratorConfig.topology": resource["topology"],
        "tpu.nodeSpec[0].multisliceParams.nodeCount": resource["node_count"],
    }
    print(",".join(fields[field] for field in _field(form).split(",")))
    return 0


def _field(form: str) -> str:
    """The field of a --format: value(FIELD), yaml(FIELD), value[delimiter=...](FIELD)."""
    return re.fullmatch(r"(?:value|yaml)(?:\[(?:delimiter|separator)=[^\]]*\])?\((.*)\)", form)[1]


def _homes(flags: dict[str, str]) -> list[Path]:
    chosen = [
        home
        for home in sorted(WORKERS.iterdir())
        if flags["node"] in ("all", home.name.split("-")[0]) and flags["worker"] in ("all", home.name.split("-")[1])
    ]
    assert chosen, flags
    return chosen


def _ssh(home: Path, command: str) -> int:
    """As sshd does it: the user's shell gets the command as one string, in the home folder."""
    import subprocess  # where it is needed: a test calls this program many times

    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "WORKER": home.name}
    return subprocess.run(["bash", "-c", command], cwd=home, env=environment, stdin=subprocess.DEVNULL).returncode


def _take_workers_away() -> None:
    import shutil
    import signal

    for keeper in WORKERS.glob("*/cptjax_jobs/*/*/keeper"):
        try:
            os.killpg(int(keeper.read_text().split()[1]), signal.SIGKILL)  # setsid made it the leader of its group
        except ProcessLookupError:
            pass
    shutil.rmtree(WORKERS, ignore_errors=True)  # what runs there may write while it goes
    WORKERS.mkdir(exist_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
