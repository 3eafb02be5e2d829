"""Exams that are SeqIO tasks: the questions of the same JSONL, and the same refusals, by task and example."""

import json
import subprocess
import sys

import pytest

from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.questions import find_exams, open_exam

seqio = pytest.importorskip("seqio")
import tensorflow as tf  # noqa: E402  (with SeqIO)

GOOD = [
    {"id": "a", "question": "Is it day?", "choices": ["yes", "no"], "answer": 0},
    {"id": "b", "question": "Qual é?", "choices": ["isto", "aquilo", "nada"], "answer": 2},
]


def register(name, lines, splits=("validation",)):
    """A task that reads these questions from memory: choices are ragged, as no two questions need have as many."""

    def dataset(split, shuffle_files=False, seed=None):
        choices = tf.ragged.constant([line["choices"] for line in lines], dtype=tf.string)
        columns = {key: [line[key] for line in lines] for key in ("id", "question", "answer")}
        return tf.data.Dataset.from_tensor_slices({**columns, "choices": choices})

    seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(
        name, source=seqio.FunctionDataSource(dataset, splits=splits), preprocessors=[], output_features={}
    )
    return f"seqio:{name}"


def test_a_task_gives_the_questions_of_the_same_lines(tmp_path):
    path = tmp_path / "same.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in GOOD), encoding="utf-8")
    (task, file) = find_exams([register("exams_good", GOOD), str(path)])
    assert list(task.read()) == list(file.read()) == list(open_exam(task.file).read())
    assert (task.name, task.questions, task.most_choices, task.answers) == ("exams_good", 2, 3, {0: 1, 2: 1})
    changed = [GOOD[0], {**GOOD[1], "answer": 1}]
    assert open_exam(register("exams_good", changed)).sha256 != task.sha256
    assert open_exam(register("exams_good", GOOD)).sha256 == task.sha256


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"answer": 3}, "example 1: its answer is 3; it is the index of the right choice, from 0 to 2"),
        ({"choices": ["isto"]}, "example 1: its choices are 1 of them"),
        ({"question": " "}, "example 1: its question is ' '"),
        ({"id": "a"}, "example 1: the id 'a' is that of example 0 too"),
    ],
)
def test_a_malformed_question_is_refused_with_task_and_example(changed, message):
    with pytest.raises(ConfigurationError) as error:
        open_exam(register("exams_bad", [GOOD[0], {**GOOD[1], **changed}]))
    assert "seqio:exams_bad#validation, example" in str(error.value) and message in str(error.value)


def test_a_task_or_a_split_that_is_not_there_is_refused():
    with pytest.raises(ConfigurationError, match="no SeqIO task 'nowhere' is registered"):
        find_exams("seqio:nowhere")
    two = register("exams_two", GOOD, ("train", "test"))
    with pytest.raises(ConfigurationError, match="has the splits train, test, and not 'validation'"):
        open_exam(two)
    assert open_exam(two + "#test").questions == 2


@pytest.mark.slow
def test_a_gin_file_imports_the_module_that_registers_the_task_and_files_need_no_tensorflow(tmp_path):
    (tmp_path / "my_exam_tasks.py").write_text(
        "import seqio\n"
        "seqio.TaskRegistry.add('mine', source=seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: None,\n"
        "    splits=['validation']), preprocessors=[], output_features={})\n"
    )
    (tmp_path / "mine.gin").write_text("import my_exam_tasks\nEXAMS = 'seqio:mine'\n")
    program = (
        "import sys\n"
        "from cptjax.configuration.configured import configure\n"
        "from cptjax.configuration.flags import parse_command\n"
        "from cptjax.evaluation.exams.questions import find_exams\n"
        f"open({str(tmp_path / 'e.jsonl')!r}, 'w').write({json.dumps(GOOD[0])!r})\n"
        f"find_exams({str(tmp_path / 'e.jsonl')!r})\n"
        "assert 'tensorflow' not in sys.modules\n"
        f"given = ['--gin_file=gin/jobs/evaluate.gin', '--gin_file={tmp_path / 'mine.gin'}', '--gin.CHECKPOINTS=\"x\"',\n"
        "    '--gin.SOURCES={}', '--gin.SEQUENCE_LENGTH=8', '--gin.OUTPUT_DIR=\"y\"', '--allow_imports=my_exam_tasks']\n"
        "configure(parse_command(given))\n"
        "import seqio\n"
        "assert 'mine' in seqio.TaskRegistry.names()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{program}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
