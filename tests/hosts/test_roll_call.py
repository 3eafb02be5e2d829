"""What follows from who came, who is heard of, and who ended how: the cause is named, not what it led to."""

import pytest

from cptjax.errors import LOST, STOPPED, ConfigurationError
from cptjax.hosts.lines import roll_call_port
from cptjax.hosts.roll_call import RollCall, Timing, timing_of

TIMING = Timing()


def complete(count=4, now=0.0):
    roll = RollCall(count, TIMING, now)
    for index in range(count):
        roll.come(index, "abcd"[index], now)
    return roll


def hear(roll, indices, now):
    for index in indices:
        roll.hear(index, now)


def test_while_all_are_heard_of_nothing_is_said():
    roll = complete()
    for second in range(600):
        hear(roll, range(4), second)
        assert roll.verdict(second + 0.5) is None
    for index in range(4):
        roll.end(index, 0, 601)
        assert roll.verdict(700 if index == 3 else 602) is None
    assert roll.over


def test_one_killed_is_named_at_once_with_its_host_and_the_signal():
    roll = complete()
    roll.end(2, -9, 1.0)
    verdict = roll.verdict(1.0)
    assert verdict.code == LOST and verdict.index == 2
    assert "process 2 of 4 (host c) is lost" in verdict.text and "SIGKILL" in verdict.text


def test_the_killed_one_is_named_and_not_those_that_jax_aborted_for_it():
    roll = complete()
    roll.end(0, -6, 1.0)
    roll.end(1, 1, 1.1)
    roll.end(3, 139, 1.3)  # SIGSEGV through a shell: reported last
    verdict = roll.verdict(1.4)
    assert "process 3 of 4 (host d)" in verdict.text and "SIGSEGV" in verdict.text and "host a" not in verdict.text


def test_after_an_abort_the_one_that_fell_silent_is_named():
    roll = complete()
    roll.end(0, -6, 10.0)
    hear(roll, (1, 2), 14.0)
    assert roll.verdict(14.9) is None
    hear(roll, (1, 2), 15.0)
    verdict = roll.verdict(15.1)
    assert "process 3 of 4 (host d) is lost" in verdict.text and "host a" not in verdict.text and verdict.code == LOST


def test_one_that_is_cut_off_is_named_after_the_silence():
    roll = complete()
    for second in range(1, 21):
        hear(roll, (0, 1, 3), second)
        assert roll.verdict(second) is None
    hear(roll, (0, 1, 3), 20.5)
    verdict = roll.verdict(20.5)
    assert "process 2 of 4 (host c) is lost" in verdict.text and "cut off" in verdict.text and verdict.code == LOST


@pytest.mark.parametrize("code, said", [(1, "failed"), (2, "failed"), (STOPPED, "was stopped")])
def test_where_one_alone_ends_by_its_own_decision_all_end_with_its_code(code, said):
    roll = complete()
    roll.end(1, code, 1.0)
    hear(roll, range(4), 5.9)
    assert roll.verdict(5.9) is None  # the others may end by themselves
    hear(roll, range(4), 6.1)
    verdict = roll.verdict(6.1)
    assert f"process 1 of 4 (host b) {said}" in verdict.text and verdict.code == code


def test_where_all_end_by_the_same_decision_nothing_is_added():
    roll = complete(2)
    roll.end(0, 75, 1.0)
    assert roll.verdict(1.1) is None
    roll.end(1, 75, 1.2)
    assert roll.verdict(1.3) is None and roll.over


def test_a_supervisor_that_goes_without_a_word_is_lost_and_one_that_said_goodbye_is_not():
    roll = complete(2)
    roll.end(1, 0, 1.0)
    roll.end(1, None, 1.1)
    assert roll.verdict(30.0) is None or "process 0" in roll.verdict(30.0).text
    roll = complete(2)
    roll.end(1, None, 1.1)
    assert "process 1 of 2 (host b) is lost: its supervisor ended without a word" in roll.verdict(1.2).text


def test_those_that_never_come_are_named_with_those_that_did():
    roll = RollCall(4, TIMING, 0.0, hosts=("a", "b", "c", "d"))
    roll.come(0, "a", 0.0)
    roll.come(2, "c", 3.0)
    hear(roll, (0, 2), 299.5)
    assert roll.verdict(299.9) is None
    hear(roll, (0, 2), 300.5)
    verdict = roll.verdict(300.5)
    assert "processes 1 (host b) and 3 (host d) of 4 did not come within 300 s" in verdict.text
    assert "Those that came: 0 (a), 2 (c)." in verdict.text and verdict.code == LOST


def test_all_end_within_a_minute():
    assert TIMING.silence + TIMING.settle + TIMING.grace + TIMING.term + 5 * TIMING.beat < 60


def test_how_long_to_wait_for_all_is_said_in_the_environment():
    assert timing_of({}).start == 300 and timing_of({"CPTJAX_START_SECONDS": "12.5"}).start == 12.5
    for wrong in ("soon", "0", "-1", "inf", "nan"):
        with pytest.raises(ConfigurationError, match="CPTJAX_START_SECONDS"):
            timing_of({"CPTJAX_START_SECONDS": wrong})


def test_the_roll_call_has_a_port_of_its_own_far_from_other_jobs():
    slurm = {2**16 - 2**12 + job for job in range(2**12)}
    assert not slurm & {roll_call_port(port) for port in slurm}
    assert all(roll_call_port(port) < 32768 for port in slurm)  # Linux deals out 32768 to 60999 to whoever connects
    assert all(0 < roll_call_port(port) < 2**16 and roll_call_port(port) != port for port in range(1, 2**16))
