import pytest

from cptjax.errors import ConfigurationError
from cptjax.planning.chips import CHIPS
from cptjax.planning.topology import find_topology
from cptjax.sharding.peaks import _PEAKS


def test_chips_devices_and_slices_are_counted():
    assert (find_topology("v5p:8x8x8").chips, find_topology("v5p:8x8x8").devices) == (512, 512)
    assert (find_topology("tpu7x:4x4x4").chips, find_topology("tpu7x:4x4x4").devices) == (64, 128)
    assert (find_topology("v5e:16x16", 2).chips, str(find_topology("v5e:16x16", 2))) == (512, "2 slices of v5e:16x16")


@pytest.mark.parametrize("name", ["v9:2x2", "v5p", "v5p:8x8", "v5e:4x4x4", "v5e:64x64", "v5p:axb", "v5p:0x2x2", "8x8"])
def test_other_names_are_refused_with_those_there_are(name):
    with pytest.raises(ConfigurationError, match=r"TOPOLOGY = .*\n(.|\n)*v6e +1x1, 2x2"):
        find_topology(name)


def test_the_peaks_of_a_chip_are_those_that_mfu_is_measured_by():
    kinds = {"v4": "TPU v4", "v5e": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6e", "tpu7x": "TPU7x"}
    assert {name: chip.flops / chip.devices for name, chip in CHIPS.items()} == {
        name: _PEAKS[kind] for name, kind in kinds.items()
    }
