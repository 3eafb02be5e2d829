"""The examples of a SeqIO task, as an exam reads them: the fields of a line of JSONL. TensorFlow is loaded when a task is read.

A task is written "seqio:name", and "#split" may follow ("validation" if it does not, or the only one there is). Whoever
registers it is a Python module that a gin file imports (main's --allow_imports). Its examples, after its preprocessors, hold
`id`, `question`, `choices` and `answer`; other fields are passed over.
"""

from collections.abc import Iterator
from typing import Any

from cptjax.errors import ConfigurationError

SEQIO = "seqio:"
_SPLIT = "validation"


def task_name(written: str) -> str:
    """The name in "seqio:name#split"."""
    return written.removeprefix(SEQIO).partition("#")[0]


def task_examples(written: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each example is ("seqio:name#split, example 3", counted from 0), and its fields as JSON would have them.

    Examples come in the task's order, unshuffled.

    Raises:
        ConfigurationError: SeqIO is not installed, no such task is registered, it has no such split, or it cannot be read.
    """
    try:
        import seqio
    except ImportError as error:
        raise ConfigurationError(
            f"EXAMS: {written} is a SeqIO task, and SeqIO cannot be imported here ({error}).\n"
            "  pip install -e '.[text]' brings it."
        ) from None
    name, _, split = written.removeprefix(SEQIO).partition("#")
    if name not in seqio.TaskRegistry.names():
        raise ConfigurationError(
            f"EXAMS: no SeqIO task {name!r} is registered.\n"
            "  A gin file imports the module that registers it ('import my_tasks'; the command: --allow_imports=my_tasks)."
        )
    task = seqio.TaskRegistry.get(name)
    splits = list(task.splits)
    split = split or (splits[0] if len(splits) == 1 else _SPLIT)
    if split not in splits:
        raise ConfigurationError(
            f"EXAMS: the SeqIO task {name!r} has the splits {', '.join(splits)}, and not {split!r}.\n"
            f"  Write the one to ask behind it: {SEQIO}{name}#{splits[0]}"
        )
    where = f"{SEQIO}{name}#{split}"
    try:
        examples = task.get_dataset(sequence_length=None, split=split, shuffle=False).as_numpy_iterator()
        for number, example in enumerate(examples):
            fields = {key: _plain(value) for key, value in example.items()}
            yield f"{where}, example {number}", fields
    except Exception as error:  # a task's own functions raise what they like; each means that it cannot be read here
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigurationError(f"EXAMS: the SeqIO task {where} cannot be read: {said}") from error


def _plain(value: Any) -> Any:
    """A feature as JSON would have it: its strings are bytes, its numbers and lists numpy's; ragged ones are lists of lists."""
    if hasattr(value, "to_list"):
        return _plain(value.to_list())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value  # no text: what names the field says so
    return value
