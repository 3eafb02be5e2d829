"""What a signal during training asks for, and when a second one means it."""

import signal

import pytest

from cptjax.training import signals


def test_two_signals_at_once_are_one_request_and_a_later_one_ends_the_process(monkeypatch):
    moment = 100.0
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background it would be ignored
    monkeypatch.setattr(signals.time, "monotonic", lambda: moment)
    with pytest.raises(KeyboardInterrupt), signals.stop_requests() as request:  # what SIGINT does as usual
        assert not request
        signal.raise_signal(signal.SIGINT)
        assert request and request.signal == "SIGINT"
        moment = 100.2
        signal.raise_signal(signal.SIGINT)  # the same request, by way of a supervisor
        moment = 101.5
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, usual)
