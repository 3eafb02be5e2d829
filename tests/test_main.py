"""The command, as a user types it: real processes, real gin files, and what is printed when something is wrong.

The jobs are small ones written for these tests; they are found where the real ones are, in `cptjax.jobs`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# Runs `main` with the test's own jobs beside the real ones.
LAUNCHER = """
import sys
import cptjax.jobs
cptjax.jobs.__path__.append({jobs!r})
from cptjax.main import main
sys.exit(main())
"""

JOB = '''
"""A job for tests."""
import dataclasses, json, os
from cptjax.configuration import command_line, resolved_config
from cptjax.configuration.values import whole_number
from cptjax.errors import CptjaxError

class Stopped(CptjaxError):
    exit_code = 75

@dataclasses.dataclass(frozen=True)
class Budget:
    tokens: float
    batch: int = 8
    def __post_init__(self):
        whole_number(self.tokens, "TRAIN_TOKENS")

def cosine(floor: float = 0.1):
    return f"cosine to {floor}"

def linear(floor: float = 0.1):
    return f"linear to {floor}"

def demo(budget: Budget, output: str, schedule=None, ending: str = "well", *, dry_run: bool = False):
    """Prints what it was given, as JSON.

    Nothing else.
    """
    if ending == "bug":
        raise ValueError("a bug")
    if ending == "interrupt":
        raise KeyboardInterrupt
    if ending == "stopped":
        raise Stopped("stopped at step 7 with everything saved.")
    if ending == "code":
        return 75
    schedule = schedule() if callable(schedule) else schedule
    print(json.dumps(dict(tokens=budget.tokens, batch=budget.batch, output=output, schedule=schedule, dry_run=dry_run,
                          config=resolved_config(), command=command_line())))
'''

RECIPE = """# A recipe for tests.
from __gin__ import dynamic_registration
from cptjax.jobs import demo

JOB = "demo"
OUTPUT_DIR = %gin.REQUIRED    # where everything goes
TRAIN_TOKENS = %gin.REQUIRED
BATCH = 8
FLOOR = 0.01

demo.demo:
    budget = @demo.Budget()
    output = %OUTPUT_DIR
    schedule = @final/demo.cosine
demo.Budget.tokens = %TRAIN_TOKENS
demo.Budget.batch = %BATCH
final/demo.cosine.floor = %FLOOR
"""

GIVEN = ("--gin.OUTPUT_DIR='runs/x'", "--gin.TRAIN_TOKENS=2e6")


class Command:
    """A folder with a job and a recipe in it, and a way to run `main` there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.write("jobs/demo.py", JOB)
        self.write("recipe.gin", RECIPE)
        self.write("launcher.py", LAUNCHER.format(jobs=str(folder / "jobs")))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", **settings}
        return subprocess.run(
            [sys.executable, "launcher.py", *arguments],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def result(self, *arguments: str) -> dict:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> str:
        """Runs what must be refused as a wrong command, on one screen and without a traceback; returns the message."""
        done = self.run(*arguments)
        assert done.returncode == 2, (done.returncode, done.stderr)
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 24 and done.stdout == ""
        return done.stderr


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_a_job_gets_what_its_gin_file_and_flags_say(command):
    result = command.result("--gin_file=recipe.gin", *GIVEN)
    assert (result["tokens"], result["batch"], result["output"]) == (2e6, 8, "runs/x")
    assert result["schedule"] == "cosine to 0.01" and result["dry_run"] is False


def test_dry_run_reaches_the_job(command):
    assert command.result("--gin_file=recipe.gin", *GIVEN, "--dry_run")["dry_run"] is True


@pytest.mark.parametrize("index", [0, 1])
def test_of_several_processes_the_first_alone_does_a_job_that_they_do_not_do_together(command, index):
    several = {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)}
    # The supervisor starts `cptjax.main` itself, which must find the test's job: by a package of that name before ours.
    command.write(
        "sitecustomize.py", f"import cptjax.jobs\ncptjax.jobs.__path__.append({str(command.folder / 'jobs')!r})\n"
    )
    path = os.pathsep.join([str(command.folder), str(REPOSITORY)])
    done = command.run("--gin_file=recipe.gin", *GIVEN, **several, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    first, *results = done.stdout.splitlines()
    if index:
        assert "process 1 of 2 has nothing to do: the job 'demo'" in first and results == []
    else:
        assert "process 0 of 2 does the job 'demo' alone" in first and json.loads(results[0])["tokens"] == 2e6


def test_later_files_and_later_flags_win(command):
    command.write("later.gin", "BATCH = 16\nTRAIN_TOKENS = 1\n")
    result = command.result("--gin_file=recipe.gin", "--gin_file", "later.gin", *GIVEN, "--gin.TRAIN_TOKENS=3e6")
    assert (result["batch"], result["tokens"]) == (16, 3e6)


@pytest.mark.parametrize("name", ["demo.demo.schedule", "demo.schedule", "cptjax.jobs.demo.demo.schedule"])
def test_parameters_are_set_by_full_or_short_names(command, name):
    result = command.result("--gin_file=recipe.gin", *GIVEN, f"--gin.{name}=@demo.linear()")
    assert result["schedule"] == "linear to 0.1"


def test_scoped_parameters(command):
    assert (
        command.result("--gin_file=recipe.gin", *GIVEN, "--gin.final/cosine.floor=0.5")["schedule"] == "cosine to 0.5"
    )


def test_gin_files_are_found_beside_in_search_paths_and_in_the_repository(command):
    command.write("shared/sizes/small.gin", "BATCH = 4\n")
    command.write("outer.gin", "include 'sizes/small.gin'\ninclude 'recipe.gin'\nBATCH = %SMALL\nSMALL = 2\n")
    result = command.result("--gin_file=outer.gin", "--gin_search_paths=elsewhere,shared", *GIVEN)
    assert result["batch"] == 2
    command.write("deep/inner.gin", "include 'beside.gin'\n")
    command.write("deep/beside.gin", "BATCH = 5\n")
    assert command.result("--gin_file=recipe.gin", "--gin_file=deep/inner.gin", *GIVEN)["batch"] == 5


def test_the_resolved_configuration_runs_again_and_says_where_values_came_from(command):
    first = command.result("--gin_file=recipe.gin", *GIVEN, "--gin.demo.schedule=@final/demo.linear()")
    assert "OUTPUT_DIR = 'runs/x'  # the command line" in first["config"]
    assert "BATCH = 8  # recipe.gin:8" in first["config"]
    assert first["command"].startswith("python -m cptjax.main --gin_file=recipe.gin")
    command.write("config.gin", first["config"])
    again = command.result("--gin_file=config.gin")
    assert _values(again["config"]) == _values(first["config"])
    assert {**again, "config": 0, "command": 0} == {**first, "config": 0, "command": 0}


def _values(text: str) -> list[str]:
    return [line.partition("  #")[0] for line in text.splitlines() if not line.startswith("#")]


def test_a_misspelt_macro_is_refused_with_the_nearest_name_and_where_it_was_set(command):
    message = command.refused("--gin_file=recipe.gin", *GIVEN, "--gin.TRAIN_TOKNES=3e6")
    assert "TRAIN_TOKNES" in message and "Did you mean TRAIN_TOKENS?" in message
    command.write("mine.gin", "BATHC = 16\n")
    message = command.refused("--gin_file=recipe.gin", "--gin_file=mine.gin", *GIVEN)
    assert "mine.gin:1: BATHC = 16" in message and "Did you mean BATCH?" in message


def test_all_missing_macros_are_listed_at_once(command):
    message = command.refused("--gin_file=recipe.gin")
    assert "2 required settings are missing" in message
    assert "OUTPUT_DIR: where everything goes" in message and "demo.demo.output (recipe.gin:13)" in message
    assert "TRAIN_TOKENS" in message and "BATCH" not in message


def test_a_required_value_the_job_does_not_use_is_not_asked_for(command):
    command.write("more.gin", "from cptjax.jobs import demo\nOTHER = %gin.REQUIRED\nother/demo.linear.floor = %OTHER\n")
    assert command.result("--gin_file=recipe.gin", "--gin_file=more.gin", *GIVEN)["tokens"] == 2e6


def test_a_parameter_nobody_binds_is_missing_like_a_macro(command):
    command.write("thin.gin", "from cptjax.jobs import demo\nJOB = 'demo'\ndemo.demo.budget = @demo.Budget()\n")
    message = command.refused("--gin_file=thin.gin")
    assert "demo.demo.output" in message and "demo.Budget.tokens" in message


def test_a_macro_that_is_used_and_never_set_is_missing(command):
    message = command.refused("--gin_file=recipe.gin", *GIVEN, "--gin.demo.ending=%FLOR")
    assert "FLOR" in message and "Did you mean FLOOR?" in message


@pytest.mark.parametrize(
    "flag, expected",
    [
        ("--gin.demo.demo.outptu='x'", "Did you mean output?"),
        ("--gin.dmo.output='x'", "Did you mean demo"),
        ("--gin.demo.demmo.output='x'", "Did you mean demo?"),
        ("--gin.demo.schedule=@demo.cosin()", "Did you mean cosine?"),
        ("--gin.demo.linear.floor=1", "the job 'demo' does not use demo.linear"),
        ("--gin.a/b.c/d=1", "cannot read"),
    ],
)
def test_unknown_bindings_are_refused_with_the_nearest_names(command, flag, expected):
    message = command.refused("--gin_file=recipe.gin", *GIVEN, flag)
    assert expected in message and flag in message


@pytest.mark.parametrize(
    "line, expected",
    [
        ("demo.Budgte.tokens = 1", "Did you mean Budget?"),
        ("schedules.cosine.floor = 1", "no import gives schedules"),
        ("demo.demo.output = @demo", "is a module, not a function"),
        ("from cptjax.jobs import dmeo", "Did you mean demo?"),
        ("from cptjax.jobs.demo import cosine", "Write `from cptjax.jobs import demo`"),
        ("BATCH = [1, 2", "never closed"),
        ("BATCH = small", "small is not a value"),
        ("BATCH = true", "Did you mean True?"),
        ("BATCH 4", "recipe.gin:18"),
        ("include 'nowhere.gin'", "included by recipe.gin"),
        ("include 'recipe.gin'", "include each other"),
        ("BATCH = %FLOOR\nFLOOR = %BATCH", "defined by itself"),
        ("JOB = 'dmeo'", "Did you mean demo?"),
        ("JOB = ['demo']", "there is no job ['demo']"),
        ("JOB = @demo.cosine()", "there is no job"),
    ],
)
def test_what_a_gin_file_gets_wrong_is_named_with_its_line(command, line, expected):
    command.write("recipe.gin", f"{RECIPE}{line}\n")
    message = command.refused("--gin_file=recipe.gin", *GIVEN)
    assert expected in message
    assert "recipe.gin:18" in message or "include" in line


@pytest.mark.parametrize(
    "flag, expected",
    [
        ("--gin.OUTPUT_DIR=/data/a", "--gin.OUTPUT_DIR=\"'/data/a'\""),
        ("--gin.OUTPUT_DIR=runs", "quotes that survive the shell"),
        ("--gin.OUTPUT_DIR='a", "read as Python would"),
        ("--gin.BATCH=true", "Did you mean True?"),
        ("--gin.BATCH=", "It has no value"),
        ("--gin.BATCH", "equals sign"),
        ("--gin.BATCH=1\nFLOOR=2", "cannot read"),
        ("--gin_fil=recipe.gin", "Did you mean --gin_file?"),
        ("--TRAIN_TOKENS=3", "--gin.TRAIN_TOKENS=VALUE"),
        ("recipe.gin", "--gin_file=recipe.gin"),
        ("--gin_file=recpie.gin", "Did you mean recipe.gin?"),
        ("--gin_file", "has no value"),
        ("--gin.TRAIN_TOKENS=2.5", "TRAIN_TOKENS = 2.5 is not a whole number"),
        ("--gin.TRAIN_TOKENS=-1", "below 0"),
    ],
)
def test_bad_flags_and_values_are_refused_with_a_hint(command, flag, expected):
    assert expected in command.refused("--gin_file=recipe.gin", *GIVEN, flag)


def test_a_missing_gin_file_lists_where_it_was_looked_for(command):
    message = command.refused("--gin_file=absent.gin", "--gin_search_paths=here,there")
    for place in ("    absent.gin", "    here/absent.gin", "    there/absent.gin", str(REPOSITORY / "absent.gin")):
        assert place in message


def test_no_job_says_how_to_choose_one(command):
    command.write("sizes.gin", "BATCH = 8\n")
    message = command.refused("--gin_file=sizes.gin")
    assert "which job to run" in message and "demo" in message
    assert "Did you mean JBO?" in command.refused("--gin_file=sizes.gin", "--gin.JBO='demo'")


EVIL = "open('it_ran', 'w').close()\n\ndef go():\n    return 'gone'\n"


@pytest.mark.parametrize("statement", ["import evil", "from evil import deep", "import evil as demo2", "import os"])
def test_a_gin_file_cannot_import_what_is_not_allowed(command, statement):
    command.write("evil/__init__.py", EVIL)
    command.write("evil/deep.py", EVIL)
    command.write("theirs.gin", f"{statement}\n")
    command.write("recipe.gin", f"{RECIPE}include 'theirs.gin'\n")
    message = command.refused("--gin_file=recipe.gin", *GIVEN)
    assert f"theirs.gin:1: {statement}" in message and "--allow_imports=" in message
    assert not (command.folder / "it_ran").exists()


def test_allow_imports_allows_what_it_names(command):
    command.write("evil.py", EVIL)
    command.write("mine.gin", "import evil\nfrom cptjax.jobs import demo\ndemo.demo.schedule = @evil.go()\n")
    arguments = ("--gin_file=recipe.gin", "--gin_file=mine.gin", *GIVEN)
    command.refused(*arguments)
    command.refused(*arguments, "--allow_imports=evi")
    result = command.result(*arguments, "--allow_imports=evil")
    assert result["schedule"] == "gone" and "import evil" in result["config"]


@pytest.mark.parametrize(
    "selector", ["demo.os.system", "demo.dataclasses.asdict", "demo.json.dumps", "demo.__loader__.x"]
)
def test_an_allowed_module_does_not_open_the_door_to_others(command, selector):
    message = command.refused("--gin_file=recipe.gin", *GIVEN, f"--gin.demo.schedule=@{selector}")
    assert selector in message


def test_a_refusal_from_inside_the_job_is_one_message(command):
    done = command.run("--gin_file=recipe.gin", *GIVEN, "--gin.Budget.tokens=2.5")
    assert done.returncode == 2
    assert done.stderr == "error: TRAIN_TOKENS = 2.5 is not a whole number.\n  Write it like 2000000 or 2e6.\n"


@pytest.mark.parametrize(
    "ending, code, start", [("bug", 1, "Traceback"), ("interrupt", 75, "stopped"), ("stopped", 75, "stopped at step 7")]
)
def test_exit_codes_and_what_is_printed(command, ending, code, start):
    done = command.run("--gin_file=recipe.gin", *GIVEN, f"--gin.demo.ending='{ending}'")
    assert done.returncode == code and done.stderr.startswith(start)
    assert ("Traceback" in done.stderr) == (ending == "bug")


def test_a_job_may_return_its_exit_code(command):
    assert command.run("--gin_file=recipe.gin", *GIVEN, "--gin.demo.ending='code'").returncode == 75


def test_help_lists_the_jobs_and_imports_neither_jax_nor_gin(command):
    command.write(
        "launcher.py",
        f"import sys, cptjax.jobs\ncptjax.jobs.__path__.append({str(command.folder / 'jobs')!r})\n"
        "from cptjax.main import main\ncode = main(sys.argv[1:])\n"
        "assert not {'jax', 'gin', 'numpy', 'absl'} & set(sys.modules)\nsys.exit(code)\n",
    )
    done = command.run("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "Prints what it was given, as JSON." in done.stdout and "Nothing else" not in done.stdout
    assert "--gin_search_paths" in done.stdout and "75" in done.stdout
    assert command.run().returncode == 2


def test_a_real_configurable_of_the_library(command):
    command.write(
        "jobs/shape.py",
        'def shape(mesh, *, dry_run=False):\n    """Prints the mesh."""\n    print(dict(mesh.shape))\n',
    )
    command.write(
        "shape.gin",
        "from __gin__ import dynamic_registration\nfrom cptjax.jobs import shape\nfrom cptjax.sharding import mesh\n"
        "JOB = 'shape'\nMESH = {'fsdp': -1}\nshape.shape.mesh = @mesh.build_mesh()\nmesh.build_mesh.sizes = %MESH\n",
    )
    done = command.run("--gin_file=shape.gin", "--gin.MESH={'replica': 2, 'fsdp': -1}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'replica': 2, 'fsdp': 4, 'context': 1, 'tensor': 1}"
    assert "MESH names the axis 'data'" in command.refused("--gin_file=shape.gin", "--gin.MESH={'data': 8}")
