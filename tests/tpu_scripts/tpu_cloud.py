"""The scripts of tpu_scripts/, run with a `gcloud` that stands in for Google's (stand_in_gcloud.py)."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "tpu_scripts"
WHERE = ("--name=pod", "--zone=us-east5-a", "--project=mine")
TPUS = ("--topology=v5e:4x4", "--spot")  # of the stand-in: two workers, or, of several slices, one each
AUTHOR = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
HEREABOUTS = ("--zone=us-east5-a", "--project=mine")  # as the scripts hand it to gcloud


@dataclass
class Cloud:
    """The stand-in's folder, and the scripts run against it."""

    folder: Path
    scripts: Path = SCRIPTS

    def run(self, script: str, *arguments: str, **options) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(script, *arguments), **self.options(), **options)

    def start(self, script: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(self.command(script, *arguments), stdout=subprocess.PIPE, **self.options(output=False))

    def command(self, script: str, *arguments: str) -> list[str]:
        return [str(self.scripts / f"{script}.sh"), *arguments]

    def options(self, output: bool = True) -> dict:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "STAND_IN": str(self.folder), "HOME": str(self.folder), "LANG": "C.UTF-8"}
        more = {"capture_output": True, "timeout": 60} if output else {"stderr": subprocess.PIPE}
        return {"cwd": self.folder, "env": environment, "text": True, "stdin": subprocess.DEVNULL} | more

    def calls(self, *words: str) -> list[list[str]]:
        """The arguments of the calls of gcloud that have these words."""
        path = self.folder / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in calls if set(words) <= set(call)]

    def fails(self, *faults: dict) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def resource(self) -> dict:
        return json.loads((self.folder / "resource.json").read_text())

    def change(self, **fields) -> None:
        (self.folder / "resource.json").write_text(json.dumps(self.resource() | fields))

    def home(self, node: int, worker: int) -> Path:
        return self.folder / "workers" / f"{node}-{worker}"


def write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def make_checkout(cloud: Cloud) -> Path:
    """A git checkout that has the scripts, which are run from there from now on, and a `uv` that notes what it is asked for."""
    checkout = cloud.folder / "checkout"
    shutil.copytree(SCRIPTS, checkout / "tpu_scripts")
    cloud.scripts = checkout / "tpu_scripts"
    for command in (["init", "--quiet"], ["add", "."], [*AUTHOR, "commit", "--quiet", "--message=first"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    write_program(
        cloud.folder / "bin/uv",
        'echo "$@" >> "$HOME/uv"\n'
        'case $1 in --version) echo "uv 0.13.9 (of the tests)";; pip) [ "$2" = install ] || echo jax==0;;\n'
        'venv) for f; do :; done; mkdir -p "$f/bin"\n'
        'printf "#!/bin/sh\\necho Python 3.12\\n" > "$f/bin/python"; chmod +x "$f/bin/python";; esac',
    )
    return checkout
