"""`evaluate` as a command: the numbers that training logged, interruptions, other tokenizers, and refusals."""

import gzip
import json
import shutil
import signal
import subprocess
import time

import jax
import pytest
from commands import ROOT, command, environment, logged, run_main
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cptjax.checkpoints.exporting import export_folder
from cptjax.models.config import DecoderConfig
from cptjax.models.families.registry import FAMILIES
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

pytestmark = pytest.mark.slow
COLUMNS = ["checkpoint", "step", "tokens", "suite", "subset", "metric", "value", "low", "high", "interval", "n"]


def rows_of(folder):
    """(checkpoint, subset, metric) -> the row of evaluation.jsonl."""
    lines = [json.loads(line) for line in (folder / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()]
    clean = {"exam_clean": ", clean"}
    found = {
        (each["checkpoint"], each["subset"] + clean.get(each["suite"], ""), each["metric"]): each for each in lines
    }
    assert len(found) == len(lines)
    for line in lines:
        of_exam = line["suite"] in ("exam", "exam_clean")
        assert list(line) == [*COLUMNS, *(["sha256"] if of_exam else [])]
    return found


@pytest.fixture(scope="module")
def settings(recipe, finished_run, shared_data):
    """An evaluation of the base and of the run that went on from it, on the rows that the run held out."""
    run, _ = finished_run
    macros = dict(setting.split("=", 1) for setting in recipe[1:])
    return [
        "gin/jobs/evaluate.gin",
        f"CHECKPOINTS={{'before': '{shared_data / 'stories260K'}', 'after': '{run}'}}",
        f"SOURCES={{'general': {macros['GENERAL']}, 'target': {macros['TARGET']}}}",
        f"ROWS_DIR={macros['ROWS_DIR']}",
        "SEQUENCE_LENGTH=64",
        "SAMPLES=24",
        "SAMPLE_TOKENS=40",
    ]


@pytest.fixture(scope="module")
def evaluated(settings, tmp_path_factory):
    """The folder of that evaluation, never interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("evaluations") / "whole"
    return folder, run_main(*settings, f"OUTPUT_DIR='{folder}'")


def test_losses_are_those_that_training_logged(evaluated, finished_run):
    folder, printed = evaluated
    run, _ = finished_run
    rows = rows_of(folder)
    steps = [line for line in logged(run) if "validation/target/loss" in line]
    for label, line in (("before", steps[0]), ("after", steps[-1])):
        for source in ("general", "target"):
            for metric in ("loss", "bits_per_byte"):
                row = rows[label, source, metric]
                assert row["value"] == pytest.approx(line[f"validation/{source}/{metric}"], rel=1e-6)
                assert row["low"] < row["value"] < row["high"] and row["suite"] == "loss"
                assert row["interval"] == "documents (this checkpoint only)" and row["n"] > 1
    assert rows["before", "general", "loss"]["step"] is None and rows["before", "general", "loss"]["tokens"] is None
    assert rows["after", "general", "loss"]["step"] == 40
    assert rows["after", "general", "loss"]["tokens"] == pytest.approx(20480, rel=0.01)
    assert f"{rows['after', 'target', 'loss']['value']:.4f}" in printed and "Traceback" not in printed
    assert "is not known" not in printed  # what the run held out: its data.json tells


def test_changes_are_differences_in_pairs(evaluated):
    rows = rows_of(evaluated[0])
    assert not [key for key in rows if key[0] == "before" and key[2].endswith("_change")]
    for subset, metrics in (("general", 2), ("target", 2), ("base", 1)):
        for metric in ("loss", "bits_per_byte")[:metrics]:
            change = rows["after", subset, f"{metric}_change"]
            before, after = rows["before", subset, metric], rows["after", subset, metric]
            assert change["value"] == pytest.approx(after["value"] - before["value"], abs=1e-9)
            assert change["low"] < change["value"] < change["high"] and change["n"] == after["n"]


def test_the_base_wrote_samples_and_the_others_were_asked_about_them(evaluated, shared_data):
    folder, _ = evaluated
    rows = rows_of(folder)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 24 and all(line["tokens"][0] == 1 and len(line["tokens"]) <= 41 for line in lines)
    assert sum("Once upon a time" in line["text"] for line in lines) > 12  # as its stories begin
    zero = rows["before", "base", "kl"]
    assert (zero["value"], zero["low"], zero["high"]) == (0.0, 0.0, 0.0)
    assert 0.3 < rows["before", "base", "loss"]["value"] < 2.0
    kl = rows["after", "base", "kl"]
    assert 0.1 < kl["low"] < kl["value"] < kl["high"] and kl["n"] == 24 and kl["suite"] == "own_samples"
    assert rows["after", "base", "loss_change"]["low"] > 0


def test_started_again_it_is_done_and_says_so(settings, evaluated):
    folder, first = evaluated
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}
    printed = run_main(*settings, f"OUTPUT_DIR='{folder}'")
    assert "nothing to do" in printed and "KL, nats/token" in printed
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_checkpoint_more_is_measured_alone(settings, evaluated, finished_run, tmp_path):
    folder = shutil.copytree(evaluated[0], tmp_path / "more")
    run, _ = finished_run
    old = json.loads((folder / "evaluation" / "before.json").read_text())["measurement"]["path"]
    early = min((run / "checkpoints").iterdir())
    more = f"CHECKPOINTS={{'after': '{run}', 'early, 1/2': '{early}'}}"
    printed = run_main(*settings, more, f"BASE='{old}'", f"OUTPUT_DIR='{folder}'")
    # The base has no label of its own any more, and is measured again under the one it is given.
    assert "after: measured before" in printed and "base:\n" in printed and "early, 1/2:\n" in printed
    rows, whole = rows_of(folder), rows_of(evaluated[0])
    assert {key[0] for key in rows} == {"base", "after", "early, 1/2"}
    assert rows["early, 1/2", "target", "loss"]["step"] == int(early.name)
    for key, row in whole.items():
        if key[0] == "after":
            assert rows[key] == row
    assert rows["base", "target", "loss"]["value"] == whole["before", "target", "loss"]["value"]


def test_stopped_and_started_again_it_ends_as_if_it_had_not(settings, evaluated, tmp_path):
    folder = tmp_path / "stopped"
    given = [*settings, f"OUTPUT_DIR='{folder}'"]
    process = subprocess.Popen(
        command(*given), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while process.poll() is None and not (folder / "evaluation" / "before.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 75 and "stopped by SIGTERM during the evaluation" in printed, printed
    assert not (folder / "evaluation.jsonl").exists() and not (folder / "evaluation" / "after.json").exists()
    assert "before: measured before" in run_main(*given)
    for name in ("evaluation.jsonl", "samples.jsonl"):
        assert (folder / name).read_bytes() == (evaluated[0] / name).read_bytes()


def test_on_eight_devices_the_numbers_are_the_same(settings, evaluated, tmp_path):
    folder = tmp_path / "eight"
    run_main(*settings, f"OUTPUT_DIR='{folder}'", "MESH={'fsdp': -1, 'tensor': 2}", devices=8)
    whole = rows_of(evaluated[0])
    assert (folder / "samples.jsonl").read_bytes() == (evaluated[0] / "samples.jsonl").read_bytes()
    for key, row in rows_of(folder).items():
        assert row["value"] == pytest.approx(whole[key]["value"], abs=2e-5)


@pytest.fixture(scope="module")
def other_tokenizer(tmp_path_factory):
    """A random model with a byte-level vocabulary of its own, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("other")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["once upon a time"],
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet),
    )
    (folder / "words").mkdir()
    tokenizer.save(str(folder / "words" / "tokenizer.json"))
    (folder / "words" / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    config = DecoderConfig(
        vocabulary=320, hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=24, maximum_length=64
    )
    params = initialize(config, 0, build_mesh({"fsdp": 1}, jax.devices()[:1]))
    export_folder(params, config, FAMILIES["llama"], None, folder / "words", folder / "model")
    return folder / "model"


def test_between_tokenizers_only_bits_per_byte_are_compared(
    settings, evaluated, other_tokenizer, finished_run, tmp_path
):
    """Also: a folder that says more of its tokenizer than the base's does is still of the same tokenizer."""
    run, _ = finished_run
    run_main("gin/jobs/export.gin", f"CHECKPOINT='{run}'", f"OUTPUT_DIR='{tmp_path / 'exported'}'")
    base = settings[1].split("'before': '")[1].split("'")[0]
    checkpoints = {"other": str(other_tokenizer), "before": base, "exported": str(tmp_path / "exported")}
    folder = tmp_path / "evaluation"
    printed = run_main(*settings, f"CHECKPOINTS={checkpoints}", "BASE='before'", f"OUTPUT_DIR='{folder}'")
    assert "tokenizers differ" in printed
    rows, whole = rows_of(folder), rows_of(evaluated[0])
    for (label, *key), row in whole.items():
        mine = rows[("exported" if label == "after" else label, *key)]
        assert mine["value"] == pytest.approx(row["value"], rel=1e-6, abs=1e-6)
    mine = {key[1:]: row for key, row in rows.items() if key[0] == "other"}
    assert set(mine) == {
        (source, metric)
        for source in ("general", "target")
        for metric in ("loss", "bits_per_byte", "perplexity", "bits_per_byte_change")
    }
    change = mine["target", "bits_per_byte_change"]
    assert change["n"] == whole["before", "target", "loss"]["n"]  # the same documents, in other tokens
    assert change["value"] == pytest.approx(
        mine["target", "bits_per_byte"]["value"] - whole["before", "target", "bits_per_byte"]["value"]
    )
    assert mine["target", "loss"]["value"] == pytest.approx(5.77, abs=0.1)  # log(320): random weights know nothing


def test_curves_are_read_off_what_was_measured(settings, evaluated, tmp_path):
    """A run against itself saves nothing, on whichever documents; a point that is not annealed or no run is refused."""
    folder = shutil.copytree(evaluated[0], tmp_path / "curves")
    printed = run_main(*settings, f"OUTPUT_DIR='{folder}'", "CURVES={'one': ['after'], 'same': ['after']}")
    assert "after: measured before" in printed and "before: measured before" in printed
    assert "target: same against one:" in printed and "no efficiency_gain" not in printed
    assert "the source model's own FLOPs are not known (SOURCE_FLOPS)" in printed
    rows = rows_of(folder)
    for metric in ("transferred_tokens", "flops_saved", "efficiency_gain"):
        row = rows["after", "target: same against one", metric]
        assert (row["suite"], row["value"], row["low"], row["high"]) == ("curves", 0.0, 0.0, 0.0)
    assert "nothing to do" in run_main(
        *settings, f"OUTPUT_DIR='{folder}'", "CURVES={'one': ['after'], 'same': ['after']}"
    )
    refused(
        [*settings, "CURVES={'one': ['after'], 'two': ['before']}", f"OUTPUT_DIR='{folder}'"], "'before' is a Hugging"
    )


def test_exams_alone_are_asked_compared_and_chosen_by(settings, finished_run, shared_data, recipe, tmp_path):
    """The base, and two steps of the run that went on from it; started again, nothing is asked twice. One question is of a text
    that the run was trained on."""
    run, _ = finished_run
    base = settings[1].split("'before': '")[1].split("'")[0]
    early = min((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    checkpoints = f"CHECKPOINTS={ {'before': base, 'early': str(early), 'after': str(run)} }"
    lines = (shared_data / "exams" / "openbook_qa_en.jsonl").read_text(encoding="utf-8").splitlines()[:23]
    corpus = dict(setting.split("=", 1) for setting in recipe[1:])["TARGET"].strip("'")
    with gzip.open(corpus, "rt", encoding="utf-8") as stream:
        words = [json.loads(line)["text"] for line in stream][10].split()
    leaked = {"id": "leaked", "question": " ".join(words[:14]), "choices": [words[14], "no"], "answer": 0}
    lines.append(json.dumps(leaked))
    exam = tmp_path / "few.jsonl"
    exam.write_text("\n".join(lines), encoding="utf-8")
    given = [*settings, checkpoints, "SOURCES={}", "SAMPLES=0", f"EXAMS='{exam}'", f"OUTPUT_DIR='{tmp_path / 'asked'}'"]
    given.append("SELECT_ON='few'")
    printed = run_main(*given)
    assert "exam few: 24 questions, letter and cloze form" in printed and "answer prior" in printed
    rows = rows_of(tmp_path / "asked")
    assert "looking for exam questions in what target trains on" in printed
    marked = {label: rows.get((label, "few", "contaminated")) for label in ("before", "early", "after")}
    assert marked["before"] is None and marked["early"]["value"] == marked["after"]["value"] in (0.0, 1.0)
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "asked" / "contamination").iterdir())]
    assert [23] in [each["found"]["few"] for each in kept]
    if marked["after"]["value"]:  # else the other half has it
        assert rows["after", "few, clean", "chance"]["n"] == marked["after"]["n"] - 1
    for form in ("letter", "cloze"):
        before, after = rows["before", "few", f"{form}_accuracy"], rows["after", "few", f"{form}_accuracy"]
        assert before["suite"] == "exam" and before["low"] <= before["value"] <= before["high"] and 4 < before["n"] < 20
        change, test = (rows["after", "few", f"{form}_accuracy{each}"] for each in ("_change", "_p"))
        assert change["value"] == pytest.approx(after["value"] - before["value"]) and 0 < test["value"] <= 1
        assert (
            rows["after", "few", f"{form}_perplexity"]["value"] != rows["before", "few", f"{form}_perplexity"]["value"]
        )
        assert {"before", "early", "after"} == {key[0] for key in rows if key[2] == f"{form}_answer_prior"}
    assert rows["after", "few", "chance"]["value"] == pytest.approx(0.25, abs=0.03)  # one question has two choices
    chosen = [label for label in ("early", "after") if rows[label, "few", "selected"]["value"] == 1.0]
    assert (
        len(chosen) == 1 and f": {chosen[0]} (" in printed and "questions of few, which are in no line above" in printed
    )
    assert rows["after", "few", "selected"]["n"] == 24 - rows["after", "few", "chance"]["n"]
    again = run_main(*given)
    assert "nothing to do" in again and f"which are in no line above: {chosen[0]} (" in again
    exam.write_text("\n".join([*lines, lines[3]]), encoding="utf-8")
    refused(given, f"{exam}, line 25: the id 'openbook_qa/3' is that of line 4 too")
    exam.write_text("\n".join(lines[1:]), encoding="utf-8")
    refused(given, "EXAMS['few']: ", "another OUTPUT_DIR")


def test_a_dry_run_says_what_would_be_evaluated_and_writes_nothing(settings, tmp_path):
    folder = tmp_path / "dry"
    printed = run_main(*settings, f"OUTPUT_DIR='{folder}'", "--dry_run")
    assert "before" in printed and "the base" in printed and "step 40" in printed and "24 texts" in printed
    assert not folder.exists()


def refused(settings, *messages, code=2):
    printed = run_main(*settings, code=code)
    error = printed[printed.index("error:") :]
    assert "Traceback" not in printed and len(error.splitlines()) <= 15
    for message in messages:
        assert message in error, error


@pytest.mark.parametrize(
    "changed, message",
    [
        ("SEED=1", "SEED: 0 then, 1 now"),
        ("SAMPLE_TOKENS=41", "SAMPLE_TOKENS: 40 then, 41 now"),
        ("COMPUTE_DTYPE='bfloat16'", "COMPUTE_DTYPE: float32 then, bfloat16 now"),
        ("BASE='after'", "BASE: "),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_with_the_change(settings, evaluated, changed, message):
    refused([*settings, f"OUTPUT_DIR='{evaluated[0]}'", changed], message, "another OUTPUT_DIR")


def test_other_text_in_the_same_folder_is_refused(settings, evaluated, recipe):
    general = dict(setting.split("=", 1) for setting in recipe[1:])["GENERAL"]
    sources = f"SOURCES={{'general': {general}, 'target': {general}}}"
    refused([*settings, f"OUTPUT_DIR='{evaluated[0]}'", sources], "SOURCES['target']: ")


@pytest.mark.parametrize(
    "changed, message",
    [
        ("CHECKPOINTS={'one': '/no/such/run'}", "the checkpoint 'one': There is nothing at '/no/such/run'"),
        ("CHECKPOINTS=['/a/model', '/b/model']", "the label 'model' twice"),
        ("BASE='nobody'", "BASE = 'nobody' is neither a label"),
        ("SOURCES={'empty': '{tmp}/empty.jsonl'}", "source 'empty' is empty"),
        ("SOURCES={'one': '{tmp}/one.jsonl'}", "nothing of source 'one' is held out"),
        ("SOURCES={'missing': '/no/such/text.jsonl'}", "/no/such/text.jsonl"),
        ("SOURCES={}", "SOURCES is empty"),
        ("SEQUENCE_LENGTH=1024", "SEQUENCE_LENGTH = 1024, but 'before' was made for at most 512"),
        ("SAMPLES=-1", "SAMPLES = -1 is below 0"),
        ("OUTPUT_DIR='{run}'", "is the folder of another job, train"),
        ("VALIDATION_TOKENS=200000", "VALIDATION_TOKENS was 131072 in the run, and is 200000 here"),
        ("VALIDATION_FRACTION=0.3", "VALIDATION_FRACTION was 0.02 in the run, and is 0.3 here"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(settings, finished_run, tmp_path, changed, message):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "one.jsonl").write_text('{"text": "Once upon a time."}\n')
    changed = changed.replace("{tmp}", str(tmp_path)).replace("{run}", str(finished_run[0]))
    refused([*settings, f"OUTPUT_DIR='{tmp_path / 'evaluation'}'", changed], message)
    assert not (tmp_path / "evaluation" / "evaluation.jsonl").exists()


def test_what_was_scored_after_a_text_is_not_compared_with_whole_documents(shared_data, tmp_path):
    """Nor the other way around; the answers alone have fewer tokens and bytes."""
    path = tmp_path / "questions.jsonl"
    lines = [json.dumps({"text": f"Who was it, of {i} girls?\nAnswer: Lily, the {i}th."}) for i in range(40)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = ["gin/jobs/evaluate.gin", f"CHECKPOINTS={{'story': '{shared_data / 'stories260K'}'}}", "SEQUENCE_LENGTH=64"]
    given += ["SAMPLES=0", "VALIDATION_FRACTION=0.5", "NEAR_DUPLICATES=None", f"ROWS_DIR='{tmp_path / 'rows'}'"]
    marked = f"SOURCES={{'q': {{'where': '{path}', 'scored_after': '\\nAnswer:'}}}}"
    plain = f"SOURCES={{'q': '{path}'}}"
    for first, second in ((marked, plain), (plain, marked)):
        folder = tmp_path / ("marked" if first is marked else "plain")
        run_main(*given, first, f"OUTPUT_DIR='{folder}'")
        assert "scored_after" in run_main(*given, second, f"OUTPUT_DIR='{folder}'", code=2)
    answers, whole = (rows_of(tmp_path / name)["story", "q", "loss"] for name in ("marked", "plain"))
    assert answers["n"] == whole["n"] and answers["value"] != whole["value"]
