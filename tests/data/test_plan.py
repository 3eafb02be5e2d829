"""The row map: exact shares, epochs that cover every row, one stream on any number of hosts, resuming for free."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.data.batch import batch
from cptjax.data.blend import ByTemperature, Ramp
from cptjax.data.packing import pack
from cptjax.data.permutation import permutation_key, permute
from cptjax.data.plan import DataPlan, SourceInfo
from cptjax.data.plan_table import table
from cptjax.data.planning import plan_data
from cptjax.data.quota import Quota
from cptjax.data.rows import RowReader, RowWriter
from cptjax.errors import ConfigurationError


def info(rows, tokens_per_row=100.0):
    return SourceInfo(rows, round(rows * tokens_per_row), 4 * rows * 100, rows, f"{rows}", 100)


shares = st.one_of(st.floats(0.05, 1), st.sampled_from([0.0, 1e-4, 0.001, 0.01, 1 / 3, 1.0]))  # tiny ones too


@st.composite
def blends(draw, names):
    """Weights for some of `names`, at least one of them above 0."""
    found = draw(st.dictionaries(st.sampled_from(names), shares, min_size=1, max_size=len(names)))
    return {**found, draw(st.sampled_from(names)): 1.0}


@st.composite
def plans(draw):
    """Up to 30 sources and 5 stages, ramps among them, of any batch size."""
    names = [f"s{i}" for i in range(draw(st.sampled_from([1, 2, 3, 5, 30])))]
    sources = {name: info(draw(st.integers(1, 300)), draw(st.floats(10, 100))) for name in names}
    stages = []
    for i in range(draw(st.integers(1, 3))):
        weights = draw(blends(names))
        if i and draw(st.booleans()):
            stages.append((f"ramp {i}", Ramp(stages[-1][1], weights), draw(st.integers(1, 50))))
        stages.append((f"stage {i}", weights, draw(st.integers(1, 40))))
    start = draw(st.dictionaries(st.sampled_from(names), st.integers(0, 1000)))
    batch_rows = draw(st.sampled_from([1, 3, 8, 24, 64]))
    return plan_data(stages, sources, batch_rows, draw(st.integers(0, 2**31)), start_rows=start)


def row_shares(plan, weights):
    """Shares of rows, in floating point, for weights that are shares of tokens."""
    rows = {n: w * plan.sources[n].rows / plan.sources[n].tokens for n, w in weights.items() if w}
    return np.array([rows.get(name, 0) for name in plan.names]) / sum(rows.values())


def shares_by_step(plan, stage):
    """The shares of rows of each of a stage's steps, [steps, sources]: a ramp's in equal jumps, each at its middle."""
    after, whole = np.array([stage.parts.get(name, 0) for name in plan.names]), sum(stage.parts.values())
    if stage.ramp_from is None:
        return np.repeat(row_shares(plan, stage.weights)[None], stage.steps, 0)
    before = np.array([stage.ramp_from.get(name, 0) for name in plan.names])
    jumps = len(stage.shares(plan.batch_rows).starts)
    middle = np.empty(stage.steps)
    for jump in range(jumps):
        middle[stage.steps * jump // jumps : stage.steps * (jump + 1) // jumps] = (jump + 0.5) / jumps
    return (before + middle[:, None] * (after - before)) / whole


@given(plans())
@settings(max_examples=60, deadline=None)
def test_after_every_step_each_source_is_within_one_row_of_its_share(plan):
    begin = 0
    for stage in plan.stages:
        due = np.cumsum(shares_by_step(plan, stage) * plan.batch_rows, axis=0)
        before = np.array(list(plan.exposures(begin).values()))
        for step in range(stage.steps):
            had = np.array(list(plan.exposures(begin + step + 1).values())) - before
            assert np.abs(had - due[step]).max() < 1 + 1e-6, (stage.name, step)
            assert not had[[name not in stage.parts for name in plan.names]].any()
        begin += stage.steps


def test_a_ramp_moves_from_the_weights_before_to_its_own():
    sources = {"a": info(1000), "b": info(1000, 50), "c": info(1000)}
    before, after = {"a": 3, "b": 1}, {"b": 1, "c": 1}
    plan = plan_data([("one", before, 10), ("ramp", Ramp(before, after), 64), ("two", after, 10)], sources, 100, seed=0)
    stage = plan.stages[1]
    first, last = (shares_by_step(plan, stage)[step] for step in (0, -1))
    assert first == pytest.approx(row_shares(plan, before), abs=0.02) and last == pytest.approx(
        row_shares(plan, after), abs=0.02
    )
    read = {name: plan.exposures(74)[name] - plan.exposures(10)[name] for name in sources}
    mean = (row_shares(plan, before) + row_shares(plan, after)) / 2
    assert list(read.values()) == pytest.approx(6400 * mean, abs=1)
    assert stage.weights == {"a": 0.375, "b": 0.375, "c": 0.25}


def test_a_ramp_of_few_steps_or_tiny_shares_has_fewer_jumps():
    sources = {"a": info(1000), "b": info(1000)}

    def jumps(after, steps):
        plan = plan_data([("ramp", Ramp({"a": 1}, after), steps)], sources, 8, seed=0)
        return len(plan.stages[0].shares(8).starts)

    assert jumps({"b": 1}, 1000) == 32 and jumps({"b": 1}, 5) == 5
    assert jumps({"a": 1, "b": 1e-4}, 1000) == 3 and jumps({"a": 1, "b": 1e-5}, 1000) == 1


@given(plans(), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=50, deadline=None)
def test_the_stream_does_not_depend_on_the_number_of_hosts(plan, hosts):
    each = -(-plan.batch_rows // hosts)
    for step in {0, plan.steps // 3, plan.steps // 2, plan.steps - 1}:
        whole = plan.rows(step)
        parts = [plan.rows(step, slice(h * each, (h + 1) * each)) for h in range(hosts)]
        for n in range(2):
            assert (np.concatenate([part[n] for part in parts]) == whole[n]).all()


@given(plans(), st.sampled_from([700, 5000]), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_row_is_what_the_quota_and_the_order_of_its_epoch_say(plan, batch_rows, far):
    stages = tuple(dataclasses.replace(stage, steps=10**6 + 10) for stage in plan.stages)
    plan = dataclasses.replace(plan, batch_rows=batch_rows, stages=stages)
    stage = plan.stage_of(far)
    sources, rows = plan.rows(far, slice(3, 40))
    local, occurrences = Quota(stage.shares(batch_rows)).rows(far * batch_rows + 3, far * batch_rows + 40)
    for source, row, i, occurrence in zip(sources, rows, local, occurrences, strict=True):
        name = list(stage.parts)[i]
        epoch, place = divmod(int(occurrence) + plan.start_rows.get(name, 0), plan.sources[name].rows)
        key = permutation_key(plan.seed, name, epoch)
        assert plan.names[source] == name
        assert permute(key, plan.sources[name].rows, np.array([place]))[0] == row


@given(plans())
@settings(max_examples=30, deadline=None)
def test_resuming_gives_what_the_fresh_run_read(plan):
    fresh = [plan.rows(step) for step in range(plan.steps)]
    again = DataPlan.from_json(plan.to_json())
    assert again == plan
    for step in reversed(range(plan.steps)):  # any step, at once, in any order
        for one, other in zip(again.rows(step), fresh[step], strict=True):
            assert (one == other).all()


@given(plans())
@settings(max_examples=30, deadline=None)
def test_each_epoch_reads_each_row_once_and_exposures_count_them(plan):
    read = {name: [] for name in plan.names}
    for step in range(plan.steps):
        assert plan.exposures(step) == {name: len(rows) for name, rows in read.items()}
        for source, row in zip(*plan.rows(step), strict=True):
            read[plan.names[source]].append(int(row))
    assert plan.exposures(plan.steps) == {name: len(rows) for name, rows in read.items()}
    for name, rows in read.items():
        size, start = plan.sources[name].rows, plan.start_rows.get(name, 0)
        by_epoch: dict[int, list[int]] = {}
        for n, row in enumerate(rows):
            by_epoch.setdefault((start + n) // size, []).append(row)
        for epoch, seen in by_epoch.items():
            assert len(set(seen)) == len(seen) and set(seen) <= set(range(size)), epoch
            if (epoch + 1) * size <= start + len(rows) and epoch * size >= start:
                assert len(seen) == size


def test_continuing_reads_what_the_trunk_would_have_read_next():
    sources = {"a": info(50), "b": info(70)}
    weights = {"a": 0.25, "b": 0.75}
    trunk = plan_data([("all", weights, 60)], sources, 8, seed=3)
    read = plan_data([("all", weights, 40)], sources, 8, seed=3).exposures(40)
    branch = plan_data([("all", weights, 20)], sources, 8, seed=3, start_rows=read)
    for name in range(2):

        def stream(plan, steps, name=name):
            return [row[source == name] for source, row in (plan.rows(step) for step in steps)]

        assert (np.concatenate(stream(trunk, range(40, 60))) == np.concatenate(stream(branch, range(20)))).all()


def test_weights_are_shares_of_tokens_not_of_rows():
    sources = {"full": info(1000, 100), "sparse": info(1000, 25)}
    plan = plan_data([("all", {"full": 0.5, "sparse": 0.5}, 250)], sources, 8, seed=0)
    assert plan.exposures(250) == {"full": 400, "sparse": 1600}
    assert plan.tokens(plan.exposures(250)) == {"full": 40_000, "sparse": 40_000}


def test_weights_are_shares_of_bytes_where_that_is_asked_for():
    sources = {
        "latin": SourceInfo(1000, 100_000, 400_000, 9, "l", 100),
        "han": SourceInfo(1000, 100_000, 100_000, 9, "h", 100),
    }
    plan = plan_data([("all", {"latin": 0.5, "han": 0.5}, 250)], sources, 8, seed=0, shares_of="bytes")
    assert plan.exposures(250) == {"latin": 400, "han": 1600}
    with pytest.raises(ConfigurationError, match="SHARES_OF is 'words'; it is 'tokens' or 'bytes'"):
        plan_data([("all", {"latin": 1}, 1)], sources, 8, seed=0, shares_of="words")


def test_weights_by_temperature_follow_the_sizes_of_the_sources():
    sources = {"large": info(8000), "small": info(500)}

    def read(temperature):
        weights = ByTemperature(["large", "small"], temperature)
        return plan_data([("all", weights, 850)], sources, 8, seed=0).exposures(850)

    assert read(1) == {"large": 6400, "small": 400}  # every source once as often as every other
    assert read(2) == {"large": 5440, "small": 1360}  # square roots: 4 to 1
    assert read(1e9) == {"large": 3400, "small": 3400}


def test_seeds_stages_and_sources_have_their_own_orders():
    sources = {"a": info(1000)}
    one, other = (plan_data([("all", {"a": 1}, 10)], sources, 100, seed=seed).rows(0)[1] for seed in (0, 1))
    assert (one != other).any()
    two_epochs = plan_data([("all", {"a": 1}, 20)], sources, 100, seed=0)
    assert (two_epochs.rows(0)[1] != two_epochs.rows(10)[1]).any()


def test_too_many_epochs_are_refused_with_what_to_do():
    sources = {"chinese_law": info(31_000), "web": info(10**6)}
    stages = [("target", {"chinese_law": 0.8, "web": 0.2}, 1200)]
    with pytest.raises(ConfigurationError) as refused:
        plan_data(stages, sources, 100, seed=0, max_epochs=2)
    assert str(refused.value) == (
        "source 'chinese_law' holds 3.1M tokens; this plan reads 9.6M of it (3.1 epochs in all) and MAX_EPOCHS is 2.\n"
        "  It has 0.8 of stage 'target'.\n"
        "  Lower TRAIN_TOKENS, or its weights, until at most 6.2M tokens of it are read, or set MAX_EPOCHS = 4."
    )
    plan_data(stages, sources, 100, seed=0, max_epochs=4)
    with pytest.raises(ConfigurationError, match="1 epochs of it were read before this run"):
        plan_data(stages, sources, 100, seed=0, max_epochs=4, start_rows={"chinese_law": 31_000})


def test_what_was_read_before_counts_even_where_the_order_begins_anew():
    sources = {"law": info(1000)}
    stages = [("all", {"law": 1}, 100)]
    plan = plan_data(stages, sources, 8, seed=0, epochs_before={"law": 1.5, "gone": 3})
    assert plan.epochs(0) == {"law": 1.5} and plan.epochs(100) == {"law": 2.3}
    assert (plan.rows(0)[1] == plan_data(stages, sources, 8, seed=0).rows(0)[1]).all()
    assert "law: 2.30 epochs, 1.50 of them before this run; reads 80k of 100k tokens" in "\n".join(table(plan))
    with pytest.raises(
        ConfigurationError, match=r"\(2.3 epochs in all\) and MAX_EPOCHS is 2(.|\n)*1.5 epochs of it were read before"
    ):
        plan_data(stages, sources, 8, seed=0, max_epochs=2, epochs_before={"law": 1.5})


def test_what_cannot_be_planned_is_refused_by_name():
    sources = {"a": info(10), "none": SourceInfo(0, 0, 0, 0, "", 100)}
    with pytest.raises(ConfigurationError, match="stage 'one' reads from 'b'; the sources are a, none"):
        plan_data([("one", {"b": 1}, 5)], sources, 8, seed=0)
    with pytest.raises(ConfigurationError, match="source 'none' .* is empty"):
        plan_data([("one", {"none": 1}, 5)], sources, 8, seed=0)
    with pytest.raises(ConfigurationError, match="stage 'one' has 0 steps"):
        plan_data([("one", {"a": 1}, 0)], sources, 8, seed=0)
    with pytest.raises(ConfigurationError, match="the share of 'a'"):
        plan_data([("one", {"a": 1e-9, "b": 1}, 1)], {**sources, "b": info(10)}, 8, seed=0)
    with pytest.raises(IndexError, match="step 5 is outside"):
        plan_data([("one", {"a": 1}, 5)], sources, 8, seed=0).rows(5)


def test_a_table_tells_what_is_read():
    plan = plan_data(
        [("one", {"a": 1}, 10), ("two", {"a": 1, "b": 3}, 20)], {"a": info(100), "b": info(400)}, 8, seed=0
    )
    text = "\n".join(table(plan))
    assert "75.00%" in text and "a: 1.20 epochs" in text and "b: 0.30 epochs" in text


def test_a_batch_is_made_of_the_planned_rows(tmp_path):
    readers, infos = {}, {}
    for n, name in enumerate("ab"):
        writer = RowWriter(str(tmp_path / name), 8, 512)
        for row in pack(((i, np.full(10, 100 * n + i)) for i in range(20)), 8):
            writer.row(row)
        manifest = writer.finish(source=name, split="train", files=(), tokenizer={}, start=1, eos=2, settings={})
        readers[name] = RowReader(str(tmp_path / name))
        infos[name] = SourceInfo(manifest.rows, manifest.tokens, 1, 1, manifest.fingerprint, 8)
    plan = plan_data([("all", {"a": 1, "b": 2}, 20)], infos, 6, seed=0)
    for step in (0, 7, 19):
        found = batch(readers, plan, step, slice(1, 5))
        source, rows = plan.rows(step, slice(1, 5))
        assert found["source"].tolist() == source.tolist() and found["inputs"].shape == (4, 8)
        for b in range(4):
            alone = readers[plan.names[source[b]]].read([rows[b]])
            assert all((found[name][b] == array[0]).all() for name, array in alone.items())
