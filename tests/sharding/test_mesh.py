import pytest

from cptjax.errors import ConfigurationError
from cptjax.sharding.mesh import AXES, build_mesh, mesh_shape
from cptjax.sharding.rules import partition_spec


@pytest.mark.parametrize(
    "sizes, expected",
    [
        (None, (1, 8, 1, 1)),
        ({"fsdp": -1, "tensor": 2}, (1, 4, 1, 2)),
        ({"replica": 2, "fsdp": 4}, (2, 4, 1, 1)),
        ({"replica": -1}, (8, 1, 1, 1)),
        ({"fsdp": 2, "context": 2, "tensor": 2}, (1, 2, 2, 2)),
    ],
)
def test_sizes_are_completed(sizes, expected):
    assert mesh_shape(sizes, 8) == expected


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"data": 8}, "data"),
        ({"fsdp": 3}, "8 device"),
        ({"fsdp": -1, "tensor": 3}, "8 device"),
        ({"fsdp": -1, "tensor": -1}, "at most one"),
        ({"fsdp": 0}, "from 1"),
        ({"fsdp": 4.5, "tensor": 2}, "whole"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ConfigurationError, match=message):
        mesh_shape(sizes, 8)


def test_a_dimension_that_does_not_divide_stays_whole():
    mesh = build_mesh({"fsdp": 4, "tensor": 2})
    assert mesh.axis_names == AXES
    assert tuple(partition_spec(mesh, ("vocabulary", "hidden"), (50257, 64))) == (None, "fsdp")
    assert tuple(partition_spec(mesh, ("vocabulary", "hidden"), (512, 63))) == ("tensor", None)
    assert tuple(partition_spec(mesh, ("batch", None), (16, 3))) == ("fsdp", None)


def test_a_dimension_that_all_its_axes_do_not_divide_is_cut_by_the_first_that_do():
    mesh = build_mesh({"fsdp": 2, "context": 2, "tensor": 2})
    assert tuple(partition_spec(mesh, ("stream", None), (64, 3))) == (("context", "tensor"), None)
    assert tuple(partition_spec(mesh, ("stream", None), (6, 3))) == ("context", None)
    assert tuple(partition_spec(mesh, ("stream", None), (1, 3))) == (None, None)  # a token at a time
