"""Which implementation of attention devices get, with its reason, and what is refused."""

import pytest

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import tokamax
from cptjax.kernels.attention.choice import check_platform, choose
from cptjax.kernels.attention.local import check_kernels


@pytest.mark.parametrize(
    ("platform", "kind", "name", "loud"),
    [
        ("cpu", "cpu", "reference", False),
        ("tpu", "TPU v4", "pallas_tpu", False),
        ("tpu", "TPU v5 lite", "pallas_tpu", False),
        ("tpu", "TPU7x", "pallas_tpu", False),
        ("tpu", "TPU v3", "reference", True),
        ("gpu", "NVIDIA H200", "reference", True),
    ],
)
def test_devices_get_what_suits_them(monkeypatch, platform, kind, name, loud):
    monkeypatch.setattr(tokamax, "installed", lambda: False)
    choice = choose("auto", platform, kind)
    assert (choice.name, choice.loud) == (name, loud)
    check_platform(choice, platform)


def test_a_gpu_gets_tokamax_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(tokamax, "installed", lambda: True)
    assert choose("auto", "gpu", "NVIDIA H200").name == "tokamax"


def test_what_is_for_other_devices_is_refused():
    with pytest.raises(ConfigurationError, match="'pallas_tpu' is for a TPU; the devices here are CPUs"):
        check_platform(choose("pallas_tpu", "cpu", "cpu"), "cpu")


def test_what_the_kernels_have_no_block_sizes_for_is_refused():
    check_kernels("TPU v5p", 256)
    with pytest.raises(ConfigurationError, match="no block sizes of our kernels for TPU v3"):
        check_kernels("TPU v3", 128)
    with pytest.raises(ConfigurationError, match="head dimensions up to 256, not 320"):
        check_kernels("TPU v4", 300)


def test_tokamax_that_is_not_installed_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(tokamax, "installed", lambda: False)
    with pytest.raises(ConfigurationError, match="pip install tokamax"):
        tokamax.tokamax_attention(None, None, None, None, causal=True, soft_cap=None, scale=1.0)
