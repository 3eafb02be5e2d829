"""report.html: it says what the folders say, of whole runs and broken ones, the same bytes each time, and needs nothing else."""

import html.parser
import json
import math
import re
import shutil

import pytest
from run_folders import (
    STEPS,
    evaluation_line,
    evaluation_rows,
    lineage,
    metrics,
    step_line,
    write_checkpoint,
    write_run,
)

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.reporting.comparison import common_metric, compare_evaluated, evaluated_base, read_evaluation, split_domains
from cptjax.reporting.report import page, write_run_report
from cptjax.reporting.run_content import read_run

VOID = {"meta", "br", "hr", "img", "input", "link"}
ARMS = {
    "before": {"general": 3.6, "target": 4.6, "never_replayed": 3.2},
    "without": {"general": 4.1, "target": 3.5, "never_replayed": 4.2},
    "with": {"general": 3.7, "target": 3.55, "never_replayed": 4.1},
}


class Page(html.parser.HTMLParser):
    """A page's tags and attributes, its text by the innermost tag, and whether every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append((self._open[-1] if self._open else "", data))

    @property
    def words(self) -> str:
        return " ".join(" ".join(data for tag, data in self.text if tag != "style").split())

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "first")


def of(folder, **arguments) -> Page:
    return Page(page([read_run(folder)], **arguments))


def test_a_finished_run_is_summed_up(run):
    found = of(run)
    words = found.words
    assert "not finished" not in words
    assert "target trained on 4.600 → 3.500 nats/token fell by 1.100 (23.9%)" in words
    assert "never_replayed evaluated only 3.200 → 4.100 nats/token rose by 0.900 (28.1%)" in words
    assert "4.140 → 3.150 bits/byte (−0.990)" in words
    assert "initialize" in words and "annealed, so its loss may be compared" in words
    assert "2e9 FLOPs" in words and "1% of its peak" in words and "20k tokens/s" in words
    assert "Training time 3s" in words  # 61,440 tokens at 20,000 a second
    assert found.attributes("lang") == ["en"] and "title" in dict(found.tags)
    titles = [data for tag, data in found.text if tag == "figcaption"]
    assert [title.partition(",")[0] for title in titles] == [
        "Held-out loss by domain",
        "Training loss",
        "Learning rate",
        "Mixture: shares of tokens by stage",
        "Gradient norm",
        "Speed",
    ]


def test_plan_data_lineage_and_configuration_are_there(run):
    words = of(run).words
    assert "60 of 8 rows x 128" in words  # plan.txt
    assert "/data/never_replayed.jsonl" in words and "0123456789ab" in words
    assert (
        "Hugging Face folder /models/base" in words and "first: general 100%; second: target 75%, general 25%" in words
    )
    assert "SOURCES = {" in words


def test_it_says_how_to_reproduce_the_run(run):
    words = of(run).words
    assert "cd /here python -m cptjax.main --gin_file=gin/recipes/rewarm.gin" in words.replace("\\ ", "")
    assert f"--gin.CHECKPOINT=\"'{run}'\"" in words and "gin/jobs/reproduce.gin" in words
    assert "c0ffeec0ffee with changes that are not committed (dirty)" in words
    assert "jax 0.10.2" in words and "platform cpu, kind cpu, devices 1" in words


def test_the_same_folder_gives_the_same_bytes(run):
    assert page([read_run(run)]) == page([read_run(run)])
    written = write_run_report(run)
    assert written == run / "report.html" and written.read_text() == page([read_run(run)])


def test_nothing_is_external_and_ids_are_unique(run, tmp_path):
    other = write_run(tmp_path / "second")
    for runs, evaluation in (([run], None), ([run, other], None), ([run, other], evaluation_rows(ARMS))):
        labels = ["without", "with"][: len(runs)]
        text = page([read_run(each, label) for each, label in zip(runs, labels, strict=True)], evaluation)
        found = Page(text)
        assert not [name for name, _ in found.tags if name in ("script", "link", "img", "iframe", "object", "base")]
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert all(value.startswith("#") for value in found.attributes(name))
        assert "http:" not in text and "https:" not in text and "@import" not in text
        assert all(url.startswith("#") for url in re.findall(r"url\((.)", text))
        ids = found.attributes("id")
        assert len(ids) == len(set(ids))
        assert all(value[1:] in ids for value in found.attributes("href"))
        charts = [attributes for tag, attributes in found.tags if tag == "svg" and attributes["class"] == "chart"]
        assert charts and all(each["role"] == "img" and each["aria-label"] for each in charts)


def test_labels_and_texts_of_any_characters_are_escaped(tmp_path):
    strange = "<script>alert(1)</script>\"'&amp; $x$ {{ 1 + 1 }} \ud800 \x07"
    losses = {strange: (3.0, 2.0), "target": (4.6, 3.5)}
    lines = [evaluation_line(0, 0.0, losses), step_line(1), evaluation_line(1, 1.0, losses)]
    folder = write_run(tmp_path / "run", lines, saved=None)
    (folder / "plan.txt").write_text("</pre><script>alert(2)</script>")
    (folder / "config.gin").write_bytes(b"X = '</pre>'\n\xff\xfe")
    run = read_run(folder, strange)
    arms = {strange: {"target": 4.0}, "other": {"target": 3.0}}
    text = page([run], evaluation_rows(arms), title=strange)
    text.encode("utf-8")
    found = Page(text)
    assert not [tag for tag, _ in found.tags if tag == "script"]
    assert "<script>alert(1)</script>\"'&amp; $x$ {{ 1 + 1 }}" in found.words
    assert "</pre><script>alert(2)</script>" in found.words


@pytest.mark.parametrize("steps", [0, 1, 25])
def test_a_killed_run_says_so_on_top(tmp_path, steps):
    folder = write_run(tmp_path / "run", metrics(steps), finished=False, saved=20 if steps > 20 else None)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 26, "loss": 3.')  # what a kill leaves of a line
    words = of(folder).words
    assert words.index("This run is not finished") < words.index("Held-out loss, before and after")
    assert f"metrics.jsonl: what cannot be read is left out (line {len(metrics(steps)) + 1})." in words
    if steps > 20:
        assert "25 of 60 steps are logged, the newest checkpoint is of step 20" in words and "Black line" in words
    else:
        assert "No checkpoint has been saved" in words and "measured once, at step 0: no change to tell" in words


def test_a_folder_that_holds_next_to_nothing_is_reported_with_what_is_missing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.gin").write_text("JOB = 'train'\n")
    words = of(tmp_path / "run").words
    for name in ("run.json", "plan.txt", "data.json", "metrics.jsonl"):
        assert f"There is no {name}." in words
    assert "No held-out loss has been measured yet." in words


def test_damaged_files_are_named_and_the_rest_is_reported(run):
    (run / "run.json").write_text("{")
    (run / "data.json").write_text("[]")
    metadata = run / "checkpoints" / f"{STEPS:09d}" / "metadata.json"
    metadata.write_text(metadata.read_text().replace("0.5", "0.6"))
    words = of(run).words
    assert "run.json is damaged" in words and "data.json is damaged" in words
    assert f"The checkpoint of step {STEPS} is damaged" in words
    assert "4.600 → 3.500" in words


def test_losses_that_are_not_finite_are_said_and_skipped_steps_listed(tmp_path):
    lines = metrics()
    lines[3] = step_line(3, loss="nan", gradient_norm="inf", skipped=1.0)
    lines[-1] = {**lines[-1], "validation/target/loss": "inf", "validation/general/loss": "nan"}
    words = of(write_run(tmp_path / "run", lines)).words
    assert "cannot be compared: a value is not finite" in words and "4.600 → not finite (inf)" in words
    assert "1 step stood out, or had no finite loss or gradient" in words and "Skipped steps 1 in all" in words
    assert "left out: 1 of the values" in words


def test_where_the_time_went_and_what_each_part_did_are_drawn(tmp_path):
    parts = {"loss/general": 3.0, "loss/target": 5.0, "gradient_norm/mlp": 0.5, "gradient_norm/attention": 0.4}
    lines = metrics()
    lines[1:21] = [step_line(step, **parts, mfu=0.41, memory_peak_bytes=3 * 2**30) for step in range(1, 20)] + [
        {"step": 20, "skipped": 1.0, "passed_over": 1.0}
    ]
    lines[5] = step_line(5, skipped=1.0, deviations=7.25, **parts)
    folder = write_run(tmp_path / "run", lines)
    seconds = {"starting": 10.0, "compiling": 20.0, "steps": 60.0, "saving": 10.0}
    entry = {"began": 0.0, "ended": 100.0, "first_step": 0, "last_step": STEPS, "seconds": seconds}
    (folder / "goodput.json").write_text(json.dumps([entry]))
    words = of(folder).words
    assert "Training loss by source, nats per token" in words and "Gradient norm by group of weights" in words
    assert "Goodput 60% of all wall time went into steps; compiling 20s, starting 10s, saving 10s" in words
    assert "MFU 41%" in words and "Memory 3 GiB" in words and "7.2" in words
    assert "1 step was passed over on request, unread (SKIP_STEPS)" in words
    (folder / "goodput.json").write_text("[{}]")
    words = of(folder).words
    assert "goodput.json is damaged" in words and "Goodput 6" not in words


def test_a_run_that_branched_counts_what_its_trunk_read(tmp_path):
    folder = write_run(tmp_path / "run", saved=None)
    trunk = lineage()
    branch = trunk.then(
        type(trunk.runs[0])(**{**trunk.runs[0].__dict__, "verb": "branch", "started_from": "/runs/first"})
    )
    write_checkpoint(folder, STEPS, branch)
    words = of(folder).words
    assert "It branched off /runs/first" in words and "with its trunk's" in words
    general = words[words.index("general /data/general.jsonl") :]
    assert " 0.5 1 0123456789ab" in general[:200]  # half an epoch here, a whole one with the trunk's


def test_what_is_no_runs_folder_is_refused_with_what_to_do(tmp_path, run):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="There is nothing at"):
        read_run(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="Hugging Face folder"):
        read_run(tmp_path / "hf")
    with pytest.raises(ConfigurationError, match=f"Name the run's folder: '{run}'"):
        read_run(run / "checkpoints" / f"{STEPS:09d}")


# --- comparisons ---


@pytest.fixture
def runs(tmp_path):
    """Two runs that differ in one setting."""
    folders = [write_run(tmp_path / name) for name in ("without", "with")]
    (folders[0] / "config.gin").write_text((folders[0] / "config.gin").read_text().replace("0.25", "0.0"))
    return [read_run(folder) for folder in folders]


def test_an_evaluation_is_shown_with_its_changes_and_intervals(runs):
    words = Page(page(runs, evaluation_rows(ARMS))).words
    assert "“without” and “with” compared with “before”" in words
    assert "Target: target (what the last stage of each run reads most of; TARGETS would name others)." in words
    assert "Forgetting is measured on: general and never_replayed." in words
    assert "4.6000 [4.550, 4.650] 3.5000 [3.450, 3.550] −1.1000 [−1.150, −1.050]" in words
    assert "One seed (0): no verdict." in words and "documents, this checkpoint only" in words
    assert "Gain on target against forgetting of never_replayed" in words
    assert "Loss on the base's own samples" in words and "KL(the base ‖ checkpoint)" in words
    assert "In what the runs differ setting without with REPLAY 0.0 0.25" in words


def test_domains_measured_on_few_documents_are_named(runs):
    rows = evaluation_rows(ARMS)
    assert "intervals say little" not in Page(page(runs, rows)).words
    rows = [{**row, "n": 3} if row["subset"] == "target" else row for row in rows]
    assert "fewer than 20 documents, so that intervals say little: target (3)." in Page(page(runs, rows)).words


def test_gain_and_forgetting_are_the_changes_of_the_loss(runs):
    labels = Page(page(runs, evaluation_rows(ARMS))).attributes("aria-label")
    (found,) = [label for label in labels if label.startswith("Gain on target against forgetting of general")]
    assert "without: +0.500 across, +1.100 up; with: +0.100 across, +1.050 up" in found
    labels = Page(
        page(runs, evaluation_rows(ARMS), targets=["general", "target"], forgotten=["never_replayed"])
    ).attributes("aria-label")
    (found,) = [label for label in labels if label.startswith("Gain on general and target")]
    assert "without: +1.000 across, +0.300 up" in found  # the mean of -0.5 and 1.1


def test_a_verdict_is_withheld_unless_seeds_vary(runs):
    rows = evaluation_rows(ARMS, interval="seeds and documents (hierarchical bootstrap)")
    assert "no verdict" not in Page(page(runs, rows)).words
    rows = [{**row, "low": None, "high": None, "interval": None} for row in rows]
    assert "No number has an interval. One seed (0): no verdict." in Page(page(runs, rows)).words


def test_changes_that_the_evaluation_holds_are_the_only_ones_shown():
    """Losses per token of another tokenizer are not compared: where there are changes in bytes, none is made up in tokens."""
    rows = [row for row in evaluation_rows(ARMS) if row["metric"] != "loss_change"]
    comparison = compare_evaluated(rows, None)
    assert comparison.base == "before"
    assert comparison.row("loss", "target", "loss").changes == {}
    assert comparison.row("loss", "target", "bits_per_byte").changes["with"].value == pytest.approx(0.9 * (3.55 - 4.6))
    assert len(compare_evaluated(evaluation_rows(ARMS, changes=False), None).row("loss", "target", "loss").changes) == 2


def test_gains_are_in_bytes_where_losses_per_token_are_not_compared(runs):
    rows = [row for row in evaluation_rows(ARMS) if row["metric"] != "loss_change"]
    labels = Page(page(runs, rows)).attributes("aria-label")
    (found,) = [label for label in labels if label.startswith("Gain on target against forgetting of general")]
    assert "bits/byte" in found and "nats" not in found and "without: +0.450 across, +0.990 up" in found


def test_a_system_without_losses_of_its_own_does_not_change_the_unit(runs):
    """A system's numbers are of the suite after_prefix: gains of the others stay in nats per token."""
    split = {
        "checkpoint": "split",
        "step": None,
        "tokens": None,
        "suite": "after_prefix",
        "subset": "target",
        "metric": "loss",
    }
    rows = [*evaluation_rows(ARMS), {**split, "value": 3.0, "low": None, "high": None, "interval": None, "n": 40}]
    assert common_metric(compare_evaluated(rows, None), ["general", "target"]) == "loss"
    rows = [row for row in rows if row["metric"] != "loss_change"]
    assert common_metric(compare_evaluated(rows, None), ["general", "target"]) == "bits_per_byte"


def test_questions_of_the_harness_are_called_questions(runs):
    row = {
        "checkpoint": "with",
        "suite": "harness",
        "subset": "tiny",
        "metric": "acc",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
    }
    row |= {"interval": "questions (this checkpoint only)", "n": 6}
    assert "harness: tiny 6 questions" in Page(page(runs, [*evaluation_rows(ARMS), row])).words


def test_the_base_of_an_evaluation_without_changes_is_the_one_that_its_record_names(tmp_path):
    """Where nothing can be compared no row is a change, and the first label may be another checkpoint."""
    assert evaluated_base(tmp_path) is None
    (tmp_path / "finished.json").write_text(json.dumps({"job": "evaluate", "base": "with"}))
    assert evaluated_base(tmp_path) == evaluated_base(tmp_path / "evaluation.jsonl") == "with"
    (tmp_path / "finished.json").write_text(json.dumps({"job": "train", "step": 3}))
    assert evaluated_base(tmp_path) is None


def test_a_base_that_is_not_that_of_the_changes_is_refused():
    with pytest.raises(ConfigurationError, match="holds changes from another checkpoint"):
        compare_evaluated(evaluation_rows(ARMS), "with")
    with pytest.raises(ConfigurationError, match="'after' is not among .*'before', 'without', 'with'"):
        compare_evaluated(evaluation_rows(ARMS), "after")
    assert compare_evaluated(evaluation_rows(ARMS, changes=False), "with").base == "with"


def test_runs_without_an_evaluation_are_compared_by_their_own(runs):
    words = Page(page(runs)).words
    assert "2 runs beside each other, each by its own last evaluation" in words
    assert "3.5000 −1.1000" in words and "No number has an interval." in words
    assert "Gain on target against forgetting of general" in words


def test_curves_of_different_held_out_text_are_called_incomparable(tmp_path, runs):
    folder = tmp_path / "with"
    data = json.loads((folder / "data.json").read_text())
    data["target"]["held_out_tokens"] = 5
    del data["general"]
    (folder / "data.json").write_text(json.dumps(data))
    words = Page(page([runs[0], read_run(folder)])).words
    assert words.count("The runs measured different held-out text") == 1
    assert words.count("Whether the runs measured the same held-out text is not recorded") == 1


def test_an_unfinished_run_among_several_is_named_on_top(tmp_path, runs):
    (tmp_path / "with" / "finished.json").unlink()
    words = Page(page([runs[0], read_run(tmp_path / "with")], evaluation_rows(ARMS))).words
    assert "with: This run is not finished" in words[: words.index("Results")]


def test_a_run_is_evaluated_that_measured_nothing_in_common(tmp_path):
    folder = write_run(tmp_path / "run", [], saved=None, finished=False)
    arms = {label: {"law": 3.0 + number} for number, label in enumerate(ARMS)}
    words = Page(page([read_run(folder, "without")], evaluation_rows(arms))).words
    assert "No domain is known to be the target: TARGETS names it." in words and "law" in words


def test_runs_that_were_not_evaluated_or_went_on_since_are_refused(run):
    rows = evaluation_rows(ARMS)
    with pytest.raises(
        ConfigurationError, match="CHECKPOINTS has 'run', which the evaluation does not have: it has 'before'"
    ):
        page([read_run(run, "run")], rows)
    at = [{**row, "step": None if row["checkpoint"] == "before" else 40} for row in rows]
    with pytest.raises(ConfigurationError, match="'with' was evaluated at step 40; the run in .* is now at step 60"):
        page([read_run(run, "with")], at)
    page([read_run(run, "with")], [{**row, "step": 60} for row in rows])


def test_a_change_over_fewer_documents_and_a_loss_that_is_not_finite_are_said(run):
    rows = evaluation_rows(ARMS)
    for row in rows:
        if row["checkpoint"] == "with" and row["metric"] == "bits_per_byte_change":
            row["n"] = 25
        if row["checkpoint"] == "with" and row["metric"] == "loss" and row["suite"] == "loss":
            row.update(value=math.inf, low=None, high=None)
    words = Page(page([read_run(run, "with")], rows)).words
    assert "the change is over 25 documents that both hold out; the values are over 40, and over 40 of before." in words
    assert "not finite (inf)" in words


@pytest.mark.parametrize(
    ("targets", "forgotten", "message"),
    [
        (
            ["code"],
            None,
            "TARGETS names 'code', but the domains that were measured are general, target, never_replayed",
        ),
        (None, ["law"], "FORGETTING names 'law'"),
        (["target"], ["general", "target"], "'target' is in TARGETS and in FORGETTING"),
    ],
)
def test_domains_that_were_not_measured_are_refused(targets, forgotten, message):
    with pytest.raises(ConfigurationError, match=message):
        split_domains(compare_evaluated(evaluation_rows(ARMS), None), [], targets, forgotten)


def test_an_evaluation_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no .*evaluation.jsonl"):
        read_evaluation(tmp_path)
    file = tmp_path / "evaluation.jsonl"
    for line, message in (
        ('{"checkpoint": "a"', "line 2: not a row of an evaluation"),
        ('{"checkpoint": "a", "value": 1}', "line 2: .*needs suite, subset, metric"),
        ("[]", "line 2"),
        (
            '{"checkpoint": "a", "suite": "loss", "subset": "s", "metric": "loss", "value": "x"}',
            "line 2: .*not a number",
        ),
    ):
        file.write_text(json.dumps(evaluation_rows(ARMS)[0]) + "\n" + line + "\n")
        with pytest.raises(CptjaxError, match=message):
            read_evaluation(file)
    file.write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        read_evaluation(tmp_path)


def test_many_runs_and_domains_have_charts_of_their_own(tmp_path):
    losses = {f"domain {i}": (4.0, 3.0 + i / 10) for i in range(9)}
    folder = write_run(tmp_path / "run0", [evaluation_line(0, 0.0, losses), evaluation_line(STEPS, 1.0, losses)])
    copies = [shutil.copytree(folder, tmp_path / f"run{i}") for i in range(1, 4)]
    found = Page(page([read_run(each) for each in [folder, *copies]]))
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    assert sum("over steps of this run" in label for label in found.attributes("aria-label")) == 9 + 2 * 4
