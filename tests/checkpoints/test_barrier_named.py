"""A save that some processes did not come to the end of says which."""

from etils import epath

from cptjax.checkpoints.failures import save_failed

# As JAX 0.10.2 raises it, from three processes of which two did not come.
TIMED_OUT = (
    "DEADLINE_EXCEEDED: Barrier timed out. Id: x save 1::0. This usually happens because a task triggered the barrier too early "
    "or too slowly. Please look at the task logs (both timed out and first task) to debug further.\n# of tasks that reached the "
    "barrier: 1/3.\nThe first task at the barrier: 0. Some timed out task names:\n1\n2\n\n\nRPC: "
    "/xla.coordination.CoordinationService/Barrier [type.googleapis.com/tensorflow.CoordinationServiceError='']"
)


def test_who_was_missing_at_the_end_of_a_save_is_named(tmp_path):
    folder = epath.Path(tmp_path / "000000012")
    message = str(save_failed(folder, RuntimeError(TIMED_OUT)))
    assert "The checkpoint of step 12 was not saved: processes 1 and 2 did not come to the end of it" in message
    assert "process 2 did" in str(save_failed(folder, RuntimeError(TIMED_OUT.replace("\n1\n2", "\n2"))))
    assert "RuntimeError: something else 3" in str(save_failed(folder, RuntimeError("something else 3")))
