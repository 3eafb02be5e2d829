"""A thread that is one item ahead: of one, in order, and its errors."""

import threading

import pytest

from cptjax.checkpoints.ahead import one_ahead


def test_one_ahead_is_one_ahead():
    begun = {number: threading.Event() for number in range(4)}

    def work(number):
        begun[number].set()
        return 10 * number

    found = one_ahead(map(work, range(4)))
    for number in range(4):
        assert next(found) == 10 * number
        assert number == 3 or begun[number + 1].wait(30)
        assert not any(begun[later].is_set() for later in range(number + 2, 4))
    assert list(found) == [] == list(one_ahead([]))


def test_an_error_comes_where_the_item_would_have_come():
    found = one_ahead(1 // number for number in (1, 0, 1))
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)
