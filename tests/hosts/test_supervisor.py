"""Supervisors of processes that are no training: each takes a second to be lost, and the others say which."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
QUICK = {"start": 3.0, "beat": 0.1, "silence": 1.5, "settle": 0.6, "grace": 0.5, "term": 0.3}

SUPERVISOR = """
import json, sys
from cptjax.hosts.finding import Found
from cptjax.hosts.roll_call import Timing
from cptjax.hosts.supervisor import supervise
found, timing, program = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
code = supervise([], Found("a test", "localhost", **found), [sys.executable, "-c", program], Timing(**timing))
assert "jax" not in sys.modules
sys.exit(code)
"""
JOINS = (
    "from cptjax.hosts import worker; import os, signal, sys, time; worker.meet_supervisor(); worker.tell_joining();"
)
STAYS = JOINS + "time.sleep(60)"


def run(programs, timing=None, count=None, first=0):
    """Supervised programs, started together: a process each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    found = [{"port": port, "count": count or len(programs), "index": first + place} for place in range(len(programs))]
    return [start(where, QUICK | (timing or {}), program) for where, program in zip(found, programs, strict=True)]


def start(found, timing, program):
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, json.dumps(found), json.dumps(timing), program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ends(processes, seconds=20):
    """(exit code, what was printed) of each."""
    printed = [process.communicate(timeout=seconds)[0] for process in processes]
    return list(zip([process.returncode for process in processes], printed, strict=True))


@pytest.mark.parametrize("lost", [0, 1])
def test_one_killed_ends_all_with_its_name_and_the_code(lost):
    programs = [STAYS] * 3
    programs[lost] = JOINS + "time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)"
    for code, printed in ends(run(programs)):
        assert code == 76, printed
        assert f"process {lost} of 3 (host " in printed and "SIGKILL" in printed and "goes on from there" in printed


def test_an_abort_for_the_loss_of_another_names_the_other():
    programs = [
        JOINS + "time.sleep(1.05); os.abort()",
        STAYS,
        JOINS + "time.sleep(1.2); os.kill(os.getpid(), signal.SIGSEGV)",
    ]
    for code, printed in ends(run(programs)):
        assert code == 76 and "process 2 of 3" in printed and "SIGSEGV" in printed and "process 0" not in printed


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_supervisor_that_hangs_is_named(stopped):
    processes = run([STAYS] * 3)
    time.sleep(1.5)
    processes[stopped].send_signal(signal.SIGSTOP)
    try:
        for code, printed in ends([process for process in processes if process is not processes[stopped]]):
            assert code == 76 and f"process {stopped} of 3" in printed and "nothing was heard of it" in printed
    finally:
        processes[stopped].send_signal(signal.SIGCONT)
        processes[stopped].send_signal(signal.SIGKILL)
        processes[stopped].communicate()


def test_those_that_do_not_come_are_named():
    (code, printed), (also, others) = ends(run([STAYS, STAYS], count=4))
    assert code == also == 76
    for said in (printed, others):
        assert "processes 2 and 3 of 4 did not come within 3 s" in said and "Those that came: 0 (" in said
    ((code, printed),) = ends(run([STAYS], count=2, first=1))
    assert code == 76 and "process 0 of 2 (host localhost) was not reached within 3 s" in printed


def test_one_that_fails_says_why_and_the_others_end_with_its_code():
    fails = (
        JOINS + "time.sleep(0.5); print('no such file'); worker.tell_ending(2); time.sleep(60)"
    )  # JAX waits on its way out
    (first, printed), (second, own) = ends(run([STAYS, fails]))
    assert first == second == 2
    assert "process 1 of 2" in printed and "exit code 2" in printed
    assert "no such file" in own and "error:" not in own


def test_a_signal_reaches_the_training_and_its_end_is_that_of_the_supervisor():
    stops = (
        JOINS
        + "signal.signal(15, lambda *_: (print('saved'), worker.tell_ending(75), sys.exit(75))); print('on', flush=True);"
    )
    processes = run([stops + "time.sleep(60)"] * 2)
    time.sleep(1.5)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for code, printed in ends(processes):
        assert (
            code == 75
            and "saved" in printed
            and "error" not in printed
            and "process" not in printed.replace("processes", "")
        )


def test_where_all_are_done_nothing_is_said_and_the_first_waits_for_the_others():
    done = JOINS + "time.sleep(0.5 + {}); worker.tell_ending(0)"
    began = time.monotonic()
    for code, printed in ends(run([done.format(0), done.format(1)])):
        assert code == 0 and "lost" not in printed
    assert time.monotonic() - began > 1.5


def test_a_job_that_joins_nobody_is_only_run():
    programs = ["import time; time.sleep(1); print('done')", "import sys; sys.exit(1)"]
    (code, printed), (other, said) = ends(run(programs))
    assert (code, printed) == (0, "done\n") and (other, said) == (1, "")


def test_the_same_process_twice_is_refused():
    processes = run([STAYS, STAYS], count=3)
    twice = start(json.loads(processes[1].args[3]), QUICK, STAYS)
    for code, printed in ends([*processes, twice]):
        assert code == 2 and "there are two processes 1 of 3" in printed


def test_garbage_at_the_port_is_no_process():
    processes = run([STAYS, JOINS + "time.sleep(2.5)"], timing={"start": 8.0})
    port = json.loads(processes[0].args[3])["port"]

    def pester():
        from cptjax.hosts.lines import roll_call_port

        for _ in range(3):
            time.sleep(0.5)
            try:
                with socket.create_connection(("localhost", roll_call_port(port)), timeout=1) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n[1]\n{}\n")
            except OSError:
                pass

    pestering = threading.Thread(target=pester)
    pestering.start()
    time.sleep(3.5)
    processes[0].send_signal(signal.SIGTERM)
    (first, printed), (second, _) = ends(processes)
    pestering.join()
    assert second == 0 and "Traceback" not in printed
