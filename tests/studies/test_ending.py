"""A job that was asked to stop and then failed has failed."""

import pytest

from cptjax.studies.ending import how_it_failed, was_stopped


@pytest.mark.parametrize("code", [0, 75, -2, 130])
def test_a_job_that_ended_as_it_was_asked_to_was_stopped(code):
    assert was_stopped(code, "SIGINT")


def test_a_job_is_stopped_by_the_signal_that_it_was_passed():
    assert was_stopped(-15, "SIGTERM") and not was_stopped(-15, "SIGINT") and not was_stopped(-9, "SIGTERM")


@pytest.mark.parametrize("code", [1, 2, -9, -11])
def test_a_job_that_failed_after_it_was_asked_to_stop_has_failed(code):
    assert not was_stopped(code, "SIGINT")
    assert how_it_failed(code, "SIGINT").endswith("after SIGINT had asked it to stop")


def test_without_a_signal_of_ours_only_75_is_a_stop():
    assert was_stopped(75, None)
    assert not any(was_stopped(code, None) for code in (0, 1, 2, -2, -15, 130))
    assert how_it_failed(2, None) == "failed with exit code 2" and how_it_failed(-9, None) == "was ended by signal 9"
