"""A command on all workers: it arrives as given, runs once, outlives the connection, and its end is told; and is started again."""

import json
import shlex
import sys
import time

import pytest
from tpu_cloud import TPUS, WHERE, make_checkout

QUICK = ("--every=0.3", "--patience=3")
PLACES = [(0, 0), (1, 0)]
ODD = [
    "two  blanks ",
    'it\'s "$HOME" `id` \\n \\',
    "a line\nand another\n",
    "",
    "--gin.OUTPUT_DIR='ä/日本'",
    "*",
    "-n",
    "!x",
]


def worker_code(**codes: int) -> list[str]:
    """A command that ends on worker N-W with the code given as wN_W, elsewhere with 0, and says where it ran."""
    cases = " ".join(f"{place[1:].replace('_', '-')}) exit {code};;" for place, code in codes.items())
    return ["bash", "-c", f'echo "here is $WORKER"; case $WORKER in {cases} esac']


def test_a_command_arrives_on_every_worker_word_for_word(pod):
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    done = pod.run("run", *WHERE, *QUICK, "--", sys.executable, "-c", program, *ODD)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ODD
    logs = sorted(pod.folder.glob("tpu_logs/pod/run/*/*-*.log"))
    assert [log.name for log in logs] == [f"{node}-{worker}.log" for node, worker in PLACES]
    assert [json.loads(log.read_text()) for log in logs] == [ODD] * 2
    dry = pod.run("run", *WHERE, "--dry_run", "--", sys.executable, "-c", program, *ODD).stdout
    started = next(call for call in pod.calls("ssh") if " start run " in str(call))
    assert shlex.split(dry.partition("\ngcloud compute tpus queued-resources describe")[0])[1:4] == started[:3]


def test_what_gcloud_repeats_after_a_broken_connection_is_started_once(pod):
    pod.fails({"call": "start", "repeat": True})
    done = pod.run("run", *WHERE, *QUICK, "--", "bash", "-c", "echo once >> $HOME/times; sleep 0.2")
    assert done.returncode == 0, done.stderr
    assert [(pod.home(*place) / "times").read_text() for place in PLACES] == ["once\n"] * 2


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"w0_0": 75, "w1_0": 75}, 75),
        ({"w0_0": 76, "w1_0": 137}, 137),
        ({"w0_0": 134, "w1_0": 2}, 2),
    ],
)
def test_the_exit_code_is_that_of_the_worker_that_matters(pod, codes, expected):
    done = pod.run("run", *WHERE, *QUICK, "--", *worker_code(**codes))
    assert done.returncode == expected, done.stderr
    for place, code in codes.items():
        assert f"t1v-n-{place[1:].replace('_', '-')}: exited {code}" in done.stderr
    assert "here is 0-0" in done.stdout


def test_a_worker_that_was_not_set_up_or_not_reached_is_no_success(pod):
    (pod.home(1, 0) / "cptjax/tpu_scripts").unlink()
    done = pod.run("run", *WHERE, *QUICK, "--", "true")
    assert done.returncode == 69 and "setup.sh" in done.stderr
    assert "job.sh" in done.stderr  # what that worker says


def test_an_earlier_attempts_end_is_not_taken_for_this_ones(pod):
    assert pod.run("run", *WHERE, *QUICK, "--", "true").returncode == 0
    pod.fails({"call": "start", "unreached": "1-0"})
    done = pod.run("run", *WHERE, *QUICK, "--", "true")
    assert done.returncode == 69 and "on t1v-n-1-0 the job was not started" in done.stderr


def test_the_laptop_may_go_and_come_back(pod):
    command = ["bash", "-c", "until [ -e $HOME/go ]; do sleep 0.05; done; echo on we went"]
    assert pod.run("run", *WHERE, "--detach", "--", *command).returncode == 0
    again = pod.run("run", *WHERE, "--detach", "--", *command)
    assert again.returncode == 69 and "job run is running on t1v-n-" in again.stderr
    following = pod.start("run", *WHERE, *QUICK, "--attach")
    _until(lambda: any(" log run " in str(call) for call in pod.calls("ssh")))
    for place in PLACES:
        (pod.home(*place) / "go").touch()
    output, complaint = following.communicate(timeout=30)
    assert (following.returncode, output) == (0, "on we went\n"), complaint
    assert pod.run("run", *WHERE, *QUICK, "--attach").returncode == 4


def test_a_job_that_is_told_to_stop_may_save_and_says_so(pod):
    command = ["bash", "-c", "trap 'echo saved; exit 75' TERM; while :; do sleep 0.05; done"]
    following = pod.start("run", *WHERE, *QUICK, "--job=train", "--", *command)
    _until(lambda: all(list(pod.home(*place).glob("cptjax_jobs/train/*/pid")) for place in PLACES))
    assert pod.run("run", *WHERE, *QUICK, "--job=train", "--stop").returncode == 0
    output, complaint = following.communicate(timeout=30)
    assert following.returncode == 5, complaint
    assert output == "saved\n"


@pytest.mark.slow
def test_tpus_that_are_taken_away_are_got_again_and_the_same_command_goes_on(cloud):
    """The bucket is what survives: the command counts its starts there, and the first one waits for what never comes."""
    make_checkout(cloud)
    bucket = cloud.folder / "bucket"
    bucket.mkdir()
    starts = bucket / "starts"
    command = f'echo $WORKER >> "{starts}"; [ $(grep -c "^$WORKER$" "{starts}") = 2 ] || sleep 100'
    cloud.fails({"call": "status", "skip": 3, "state": "SUSPENDED"})
    done = cloud.run(
        "watch", *WHERE, *TPUS, *QUICK, "--delete_when_done", "--", "bash", "-c", command, "OUTPUT_DIR=gs://b/run"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(starts.read_text().split()) == ["0-0", "0-0", "0-1", "0-1"]
    verbs = [call[3] for call in cloud.calls("queued-resources") if call[3] in ("create", "delete", "scp")]
    assert verbs == ["create", "scp", "delete", "create", "scp", "delete"]
    assert "it is SUSPENDED" in done.stderr


@pytest.mark.slow
def test_what_stopped_or_crashed_is_started_again_and_what_failed_is_not(cloud):
    make_checkout(cloud)
    count = "n=$(cat $HOME/n 2> /dev/null || echo 0); echo $((n + 1)) > $HOME/n; set -- 75 134 0; shift $n; exit $1"
    done = cloud.run("watch", *WHERE, *TPUS, *QUICK, "--", "bash", "-c", count)
    assert done.returncode == 0, done.stderr
    assert (cloud.home(0, 0) / "n").read_text() == "3\n"
    assert "OUTPUT_DIR" not in done.stderr and "billed" in done.stderr
    before = len(cloud.calls("ssh"))
    failed = cloud.run("watch", *WHERE, *TPUS, *QUICK, "--", *worker_code(w0_1=1))
    assert failed.returncode == 1 and "billed" in failed.stderr
    assert sum(" start " in str(call) for call in cloud.calls("ssh")[before:]) == 1
    crashed = cloud.run("watch", *WHERE, *TPUS, *QUICK, "--max_failures=1", "--", *worker_code(w0_1=134))
    assert crashed.returncode == 134 and "1 times in a row" in crashed.stderr


def test_an_output_folder_that_goes_with_the_tpus_is_warned_of(cloud):
    done = cloud.run("watch", *WHERE, *TPUS, "--dry_run", "--", "python", "--gin.OUTPUT_DIR='runs/x'")
    assert "OUTPUT_DIR is no bucket" in done.stderr
    assert not cloud.calls()


def _until(holds, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
