"""Supervisors of processes that are no training: each takes a second to be lost, and the others say which."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from free_ports import free_port

from cptjax.hosts.lines import roll_call_port

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
QUICK = {"start": 20.0, "beat": 0.2, "silence": 8.0, "settle": 1.0, "grace": 0.5, "term": 0.3}

SUPERVISOR = """
import json, sys
from cptjax.hosts.finding import Found
from cptjax.hosts.roll_call import Timing
from cptjax.hosts.supervisor import supervise
found, timing, program = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
code = supervise([], Found("a test", "localhost", **found), sys.argv[4], [sys.executable, "-c", program], Timing(**timing))
assert "jax" not in sys.modules
sys.exit(code)
"""
JOINS = (
    "from cptjax.hosts import worker; from cptjax.processes import end_with_parent; import os, signal, sys, time;"
    "worker.meet_supervisor(); end_with_parent(); worker.tell_joining();"
)
STAYS = JOINS + "time.sleep(60)"


def run(programs, timing=None, count=None, first=0):
    """Supervised programs, started together: a process each."""
    port = free_port()
    found = [{"port": port, "count": count or len(programs), "index": first + place} for place in range(len(programs))]
    return [start(where, QUICK | (timing or {}), program) for where, program in zip(found, programs, strict=True)]


def start(found, timing, program, same="a run"):
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, json.dumps(found), json.dumps(timing), program, same],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ends(processes, seconds=60):
    """(exit code, what was printed) of each."""
    printed = [process.communicate(timeout=seconds)[0] for process in processes]
    return list(zip([process.returncode for process in processes], printed, strict=True))


def all_here(processes):
    """Returns once the first one says that all have come."""
    while "processes have come" not in (line := processes[0].stdout.readline()):
        assert line, "the first one ended before all had come"
    return processes


def training_of(process):
    """The pid of what a supervisor has started."""
    (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(pid)


def cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_one_killed_ends_all_with_its_name_and_the_code_and_a_stranger_at_the_port_does_not():
    processes = all_here(run([STAYS] * 3))
    port = roll_call_port(json.loads(processes[0].args[3])["port"])
    with socket.create_connection(("localhost", port), timeout=5) as stranger:
        stranger.sendall(b'GET / HTTP/1.1\r\n\r\n[1]\n{}\n{"ended": 1}\n')
    wrong = {"index": 1, "host": "a", "count": 3}
    hellos = [1, [], {}, wrong, wrong | {"run": "a run", "index": "x"}, wrong | {"run": "a run", "count": float("inf")}]
    with socket.create_connection(("localhost", port), timeout=5) as stranger:
        stranger.sendall("".join(json.dumps({"hello": hello}) + "\n" for hello in hellos).encode())
    before = cpu_seconds(processes[0])
    time.sleep(1)
    assert cpu_seconds(processes[0]) - before < 0.3  # it waits, and answers no beat with a beat
    assert all(process.poll() is None for process in processes)
    os.kill(training_of(processes[1]), signal.SIGKILL)
    for code, printed in ends(processes):
        assert code == 76, printed
        assert "process 1 of 3 (host " in printed and "SIGKILL" in printed and "goes on from there" in printed


def test_a_first_supervisor_that_hangs_is_named_by_the_others():
    processes = all_here(run([STAYS] * 3))
    processes[0].send_signal(signal.SIGSTOP)
    try:
        for code, printed in ends(processes[1:]):
            assert code == 76 and "process 0 of 3" in printed and "nothing was heard of it" in printed
    finally:
        processes[0].send_signal(signal.SIGCONT)
        processes[0].kill()
        processes[0].communicate()


def test_those_that_do_not_come_are_named():
    (code, printed), (also, others) = ends(run([STAYS, STAYS], {"start": 15.0}, count=4))
    assert code == also == 76
    for said in (printed, others):
        assert "processes 2 and 3 of 4 did not come within 15 s" in said and "Those that came: 0 (" in said
    ((code, printed),) = ends(run([STAYS], {"start": 0.5}, count=2, first=1))
    assert code == 76 and "process 0 of 2 (host localhost) was not reached within 0.5 s" in printed


def test_one_that_fails_says_why_and_the_others_end_with_its_code():
    fails = (
        JOINS + "time.sleep(0.5); print('no such file'); worker.tell_ending(2); time.sleep(60)"
    )  # JAX waits on its way out
    (first, printed), (second, own) = ends(run([STAYS, fails]))
    assert first == second == 2
    assert "process 1 of 2" in printed and "exit code 2" in printed
    assert "no such file" in own and "error:" not in own


@pytest.mark.parametrize("place", [0, 1])
def test_one_that_fails_before_it_joins_ends_the_others_with_its_code(place):
    fails = "import sys; print('no such file'); sys.exit(2)"
    programs = [STAYS, STAYS]
    programs[place] = fails
    ended = ends(run(programs))
    assert [code for code, _ in ended] == [2, 2]
    assert ended[place][1] == "no such file\n"
    assert f"process {place} of 2" in ended[1 - place][1] and "exit code 2" in ended[1 - place][1]


def test_a_signal_reaches_the_training_and_its_end_is_that_of_the_supervisor():
    stops = "signal.signal(15, lambda *_: (print('saved'), worker.tell_ending(75), sys.exit(75)));"
    processes = all_here(run([JOINS.replace("worker.tell", stops + "worker.tell") + "time.sleep(60)"] * 2))
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for code, printed in ends(processes):
        assert (code, printed) == (75, "saved\n")


def test_a_signal_before_training_begins_stops_all_and_is_no_loss():
    processes = all_here(run([STAYS] * 3))
    processes[1].send_signal(signal.SIGTERM)  # nothing in the training heeds it yet: it ends by it
    (first, others), (own, printed), (third, _) = ends(processes)
    assert (first, own, third) == (75, 75, 75), printed
    assert (
        printed
        == "stopped by SIGTERM outside of training, where nothing has to be saved. Run the same command again.\n"
    )
    assert "process 1 of 3 (host " in others and "was stopped (exit code 75)" in others and "error" not in others


def test_a_second_signal_ends_a_training_that_has_not_saved_and_is_a_loss():
    saves = JOINS.replace("worker.tell", "signal.signal(15, lambda *_: signal.signal(15, signal.SIG_DFL)); worker.tell")
    processes = all_here(run([STAYS, saves + "[time.sleep(0.1) for _ in range(600)]"]))
    processes[1].send_signal(signal.SIGTERM)
    time.sleep(0.5)
    processes[1].send_signal(signal.SIGTERM)
    for code, printed in ends(processes):
        assert code == 76 and "process 1 of 2" in printed and "was ended by SIGTERM" in printed, printed


def test_where_all_are_done_nothing_is_said_and_a_job_that_joins_nobody_is_only_run():
    done = JOINS + "time.sleep({}); worker.tell_ending(0)"
    assert [code for code, _ in ends(all_here(run([done.format(1), done.format(1.5)])))] == [0, 0]
    assert ends(run([JOINS.replace("tell_joining", "tell_alone") + "sys.exit(1)", "print('done')"])) == [
        (1, ""),
        (0, "done\n"),
    ]


def test_the_same_process_twice_is_refused():
    processes = run([STAYS, STAYS], count=3)
    twice = start(json.loads(processes[1].args[3]), QUICK, STAYS)
    for code, printed in ends([*processes, twice]):
        assert code == 2 and "there are two processes 1 of 3" in printed


def test_a_process_of_another_run_is_turned_away_and_the_run_goes_on():
    processes = run([STAYS, STAYS], count=3)
    ((code, printed),) = ends([start(json.loads(processes[1].args[3]), QUICK, STAYS, same="another run")])
    assert code == 2 and "belongs to another run (a run), with the same port" in printed
    third = json.loads(processes[1].args[3]) | {"index": 2}
    processes = all_here([*processes, start(third, QUICK, STAYS)])
    os.kill(training_of(processes[2]), signal.SIGKILL)
    assert [code for code, _ in ends(processes)] == [76] * 3
