import jax
import numpy as np
import pytest

from cptjax.sharding.batches import batches, place_rows
from cptjax.sharding.mesh import build_mesh

ROWS, LENGTH = 16, 8


def step_rows(step: int, rows: slice) -> dict[str, np.ndarray]:
    whole = np.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) + 1000 * step
    return {"inputs": whole[rows], "source": whole[rows, 0]}


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"replica": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "context": 4}])
def test_the_global_batch_is_the_same_on_every_mesh(sizes):
    placed = place_rows(lambda rows: step_rows(3, rows), ROWS, build_mesh(sizes))
    assert np.array_equal(placed["inputs"], step_rows(3, slice(None))["inputs"])
    assert np.array_equal(placed["source"], step_rows(3, slice(None))["source"])
    assert all(isinstance(array, jax.Array) for array in placed.values())


def test_steps_come_in_order_from_any_start():
    mesh = build_mesh({"fsdp": 8})
    got = [(step, int(rows["inputs"][0, 0])) for step, rows in batches(step_rows, range(5, 12), ROWS, mesh)]
    assert got == [(step, 1000 * step) for step in range(5, 12)]


def test_an_error_while_reading_ahead_is_raised_where_the_step_is_asked_for():
    def broken(step: int, rows: slice):
        if step == 2:
            raise OSError("disk gone")
        return step_rows(step, rows)

    reading = batches(broken, range(5), ROWS, build_mesh({"fsdp": 8}))
    assert [next(reading)[0], next(reading)[0]] == [0, 1]
    with pytest.raises(OSError, match="disk gone"):
        next(reading)
