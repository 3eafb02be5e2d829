"""Kernels in JAX's interpreter of TPUs, which finds races, reads out of bounds and reads of what nobody wrote."""

import contextlib
from unittest import mock

from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter
from jax.experimental.pallas import tpu as pltpu


class RaceFound(AssertionError):
    """Two accesses of a kernel to one place, of which one writes, and neither comes before the other."""


@contextlib.contextmanager
def interpreted(cores: int = 1):
    """Kernels traced inside run in the interpreter; reads out of bounds raise, and memory begins as NaN.

    Functions jitted inside are called inside too.

    Args:
        cores: of a chip, as v4 and v5p have two, which share out a grid's parallel dimensions.

    Raises:
        RaceFound: when the block ends, if any kernel that was run inside raced. JAX 0.12 raises in the kernel; 0.10 prints, and
            keeps what it found of the last kernel only, so every kernel's state is kept here.
    """
    states, kind = [], interpreter.RaceDetectionState

    def kept(*arguments, **named):
        states.append(kind(*arguments, **named))
        return states[-1]

    how = {"detect_races": True, "out_of_bounds_reads": "raise", "uninitialized_memory": "nan"}
    params = pltpu.InterpretParams(num_cores_or_threads=cores, **how)
    with mock.patch.object(interpreter, "RaceDetectionState", kept), pltpu.force_tpu_interpret_mode(params):
        try:
            yield
        except Exception as error:
            pltpu.reset_tpu_interpret_mode_state()  # what the interrupted kernel left would be the next one's
            if "RACE DETECTED" in str(error):
                raise RaceFound(str(error)) from error
            raise
    if any(state.races_found for state in states):
        raise RaceFound("the interpreter found a race; see what it printed")
    assert states, "no kernel was interpreted"
