"""Split systems: routed on a prefix, scored after it, beside an oracle, with the router's cost counted."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_documents import FACTS

from cptjax.checkpoints.exporting import export_folder
from cptjax.data.packing import pack
from cptjax.data.prepare import PreparedSource
from cptjax.data.rows import RowReader, RowWriter
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import open_compared
from cptjax.evaluation.own_samples import Model
from cptjax.evaluation.routing import embed_prefixes, nearest_expert, score_by_system
from cptjax.evaluation.score import score_sequences
from cptjax.evaluation.system_rows import _bytes_after, check_systems, refuse_short_texts, system_rows, without_systems
from cptjax.evaluation.systems import open_system
from cptjax.jobs.score import score
from cptjax.main import main
from cptjax.models.flops import flops_per_token
from cptjax.models.model import hidden_states
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

ROOT = Path(__file__).parents[2]
PREFIX, LENGTH = 6, 16


@pytest.fixture(scope="module")
def mesh():
    return build_mesh({"fsdp": 2}, jax.devices()[:2])


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [[1, *rng.integers(3, 512, n).tolist()] for n in (20, 9, 30, 4, 12, 5, 40, 8)]


@pytest.fixture(scope="module")
def folder(shared_data, texts, mesh, tmp_path_factory):
    """stories260K, another of its shape that knows nothing, and centroids where the prefixes of texts 0 and 2 are."""
    folder = tmp_path_factory.mktemp("system")
    (story,), _ = open_compared({"story": str(shared_data / "stories260K")}, None)
    params, opened = story.opened.load_parameters(mesh), story.opened
    noise = {name: value + 0.05 * jax.random.normal(jax.random.key(1), value.shape) for name, value in params.items()}
    given = (noise, opened.config, opened.family, opened.original_config, opened.model_folder, folder / "noise")
    export_folder(*given)
    (folder / "story").symlink_to(shared_data / "stories260K")
    write_system(folder, np.zeros((2, opened.config.hidden)) + 1.0)
    vectors = embed_prefixes(open_system(folder / "system.json").reader, params, Numerics(), mesh, texts)
    write_system(folder, vectors[[0, 2]])
    return folder


def write_system(folder, values, **changed):
    np.save(folder / "centroids.npy", values.astype(np.float32))
    described = {
        "router": {"prefix_tokens": PREFIX},
        "embedder": {"checkpoint": "story"},
        "centroids": "centroids.npy",
        "experts": ["story", "noise"],
    }
    (folder / "system.json").write_text(json.dumps(described | changed), encoding="utf-8")


@pytest.fixture(scope="module")
def system(folder):
    return open_system(folder / "system.json")


def expert_scores(system, mesh, texts):
    found = []
    with jax.set_mesh(mesh):
        for expert in system.experts:
            given = (expert.load_parameters(mesh), expert.config, Numerics(), mesh, iter(texts))
            found.append(list(score_sequences(*given)))
    return found


@pytest.mark.parametrize("pooling", ["mean", pytest.param("last", marks=pytest.mark.slow)])
def test_the_router_sees_the_last_layer_over_the_prefix(folder, texts, mesh, tmp_path, pooling):
    for name in ("story", "noise"):
        (tmp_path / name).symlink_to((folder / name).resolve())
    write_system(tmp_path, np.ones((2, 64)), embedder={"checkpoint": "story", "pooling": pooling})
    system = open_system(tmp_path / "system.json")
    params = system.embedder.load_parameters(mesh)
    found = embed_prefixes(system.reader, params, Numerics(), mesh, texts)
    for text, vector in zip(texts, found, strict=True):
        ids = jnp.asarray([(text[:PREFIX] + [0] * PREFIX)[:PREFIX]])
        read = min(len(text), PREFIX)
        segments = (jnp.arange(PREFIX) < read).astype(jnp.int32)[None]
        states = np.asarray(
            hidden_states(params, system.embedder.config, Numerics(), ids, jnp.arange(PREFIX)[None], segments)
        )
        expected = states[0, :read].mean(0) if pooling == "mean" else states[0, read - 1]
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-5)


def test_the_nearest_centroid_takes_the_text():
    vectors, centroids = np.array([[3.0, 0.1], [0.2, 0.1], [-1.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 9.0]])
    assert nearest_expert(vectors, centroids, "cosine").tolist() == [0, 0, 1]
    assert nearest_expert(np.array([[0.9, 4.0], [0.9, 5.0]]), centroids, "euclidean").tolist() == [0, 1]


@pytest.mark.slow
def test_a_line_is_scored_by_its_expert_after_the_prefix(system, texts, mesh):
    found, each = (
        score_by_system(system, Numerics(), mesh, texts, lambda line: None),
        expert_scores(system, mesh, texts),
    )
    assert found[0][0] == 0 and found[2][0] == 1  # their prefixes are the centroids
    for n, (text, (expert, scores)) in enumerate(zip(texts, found, strict=True)):
        assert len(scores) == len(text) - 1
        assert scores[: PREFIX - 1] == [None] * min(PREFIX - 1, len(scores))  # the router reads tokens 0 to PREFIX - 1
        assert scores[PREFIX - 1 :] == pytest.approx(each[expert][n][PREFIX - 1 :].tolist(), abs=1e-6)


@pytest.mark.slow
def test_the_job_score_takes_a_system_for_a_checkpoint(folder, system, texts, tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"tokens": text}) + "\n" for text in texts), encoding="utf-8")
    monkeypatch.chdir(ROOT)
    given = ["--gin_file=gin/jobs/score.gin", f"--gin.CHECKPOINT='{folder}'", f"--gin.INPUT='{tmp_path / 'in.jsonl'}'"]
    assert main([*given, f"--gin.OUTPUT='{tmp_path / 'out.jsonl'}'"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = score_by_system(system, Numerics(), build_mesh(), texts, lambda line: None)
    assert [(line["tokens"], line["expert"]) for line in lines] == [
        (t, e) for t, (e, _) in zip(texts, expected, strict=True)
    ]
    assert [line["logprobs"] for line in lines] == [scores for _, scores in expected]
    assert main([*given, f"--gin.OUTPUT='{tmp_path / 'other.jsonl'}'", "--gin.STEP=3"]) == 2


def test_a_line_longer_than_experts_were_made_for_is_warned_of(folder, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text(json.dumps({"tokens": [1] * 600}) + "\n", encoding="utf-8")
    score(str(folder), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), dry_run=True)
    assert "the longest line has 600 tokens; expert 1 was made for 512" in capsys.readouterr().err


@pytest.fixture(scope="module")
def rows(texts, system, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("rows") / "validation")
    writer = RowWriter(folder, LENGTH, 512)
    documents = [np.array([*text, 2]) for text in texts]
    for number, document in enumerate(documents):
        writer.document(f"d{number}", 10, len(document) - 1, {})
    for row in pack(enumerate(documents), LENGTH):
        writer.row(row)
    facts = {
        "source": "mixed",
        "split": "validation",
        "files": (),
        "tokenizer": {},
        "start": 1,
        "eos": 2,
        "settings": {},
    }
    writer.finish(**facts)
    return {"mixed": PreparedSource(**{**dict.fromkeys(PreparedSource.__dataclass_fields__), "validation": folder})}


def test_bytes_after_a_prefix_that_ends_inside_a_character(shared_data, tmp_path):
    """A byte of three is no character yet; what it decodes to has three bytes of its own."""
    tokenizer = open_tokenizer(str(shared_data / "stories260K"))
    text = "a 中文 b"
    ids = [tokenizer.start, *tokenizer.encode(text), tokenizer.eos]
    writer = RowWriter(str(tmp_path / "validation"), LENGTH, tokenizer.size)
    writer.document("d", len(text.encode()), len(ids) - 1, {})
    for row in pack([(0, np.array(ids))], LENGTH):
        writer.row(row)
    writer.finish(**FACTS)
    reader = RowReader(str(tmp_path / "validation"))
    left = [int(_bytes_after(reader, skip, tokenizer)[0]) for skip in range(len(ids) - 1)]
    assert left[0] == len(text.encode()) and left == sorted(left, reverse=True)
    for skip, found in enumerate(left):
        begun = tokenizer.decode(ids[1 : skip + 1]).rstrip("\ufffd")
        assert text.startswith(begun) and found == len(text[len(begun) :].encode())


def test_routed_and_oracle_stand_apart_and_the_router_costs(system, folder, rows, texts, mesh):
    (base,), _ = open_compared({"story": str(folder / "story")}, None)

    def load(one):
        return Model(one.opened.load_parameters(mesh), one.opened.config, Numerics())

    told = (load, rows, Numerics(), mesh, 4, 0, lambda line: None, lambda items, *_: items)
    found = system_rows({"split": system}, [base], base, *told)
    assert {row["suite"] for row in found} == {"after_prefix"}
    value = {(row["checkpoint"], row["metric"]): row["value"] for row in found}
    longer = [text for text in texts if len(text) + 1 > PREFIX]
    assert {row["n"] for row in found} == {len(longer)}

    single = value["story", "loss"]
    assert value["split", "oracle_loss"] <= min(single, value["split", "loss"])
    assert value["split", "loss"] != single and value["split", "loss_change"] == pytest.approx(
        value["split", "loss"] - single
    )
    assert ("story", "oracle_loss") not in value and ("story", "loss_change") not in value
    config = system.embedder.config
    each, scored = flops_per_token(config, PREFIX), sum(len(text) + 1 - PREFIX for text in longer)
    router = len(longer) * ((each.forward - each.head) * PREFIX + 2 * 2 * config.hidden) / scored
    assert (
        value["split", "router_flops_per_token"] == pytest.approx(router)
        and value["story", "router_flops_per_token"] == 0
    )
    expert = flops_per_token(config, LENGTH).forward
    assert (
        value["split", "flops_per_token"] == pytest.approx(expert + router)
        and value["story", "flops_per_token"] == expert
    )


def test_a_system_of_one_model_is_that_model(folder, rows, texts, mesh, tmp_path):
    (tmp_path / "story").symlink_to((folder / "story").resolve())
    write_system(tmp_path, np.ones((2, 64)), experts=["story", "story"])
    single, systems = without_systems({"base": str(folder / "story"), "twice": str(tmp_path)})
    compared, base = open_compared(single, None)
    check_systems(systems, base, rows)

    def load(one):
        return Model(one.opened.load_parameters(mesh), one.opened.config, Numerics())

    found = system_rows(
        systems, compared, base, load, rows, Numerics(), mesh, None, 0, lambda line: None, lambda items, *_: items
    )
    value = {(row["checkpoint"], row["metric"]): row["value"] for row in found}
    assert value["twice", "loss"] == value["twice", "oracle_loss"] == value["base", "loss"]
    assert value["twice", "loss_change"] == 0.0


def test_a_prefix_as_long_as_every_text_is_refused_before_anything_is_scored(system, rows, texts):
    longest = max(len(text) + 1 for text in texts)
    refuse_short_texts({"split": dataclasses.replace(system, prefix=longest - 1)}, rows)
    with pytest.raises(ConfigurationError, match=f"'split' routes on {longest} tokens, .* of source 'mixed' is longer"):
        refuse_short_texts({"split": dataclasses.replace(system, prefix=longest)}, rows)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"experts": []}, r"experts = \[\]"),
        ({"experts": ["story"]}, r"float32 \[2, 64\]; centroids are .* here \[1, 64\]"),
        ({"experts": ["story", "nowhere"]}, r"expert 1: There is nothing at"),
        ({"router": {"prefix_tokens": 0}}, r"router.prefix_tokens = 0 is below 1"),
        ({"router": {"prefix_tokens": 4, "distance": "far"}}, r"router.distance = 'far'"),
        ({"router": {"prefix_tokens": 513}}, r"prefix_tokens = 513, but the embedder was made for at most 512"),
        ({"router": {}}, r"router.prefix_tokens is missing; it is a whole number"),
        ({"embedder": {"checkpoint": "story", "layer": 3}}, r"embedder.layer is not known"),
        ({"centroids": "none.npy"}, r"There are no centroids at"),
        ({"gate": 1}, r"gate is not known; there is router, embedder, centroids, experts"),
    ],
)
def test_a_system_that_cannot_be_is_refused(folder, tmp_path, changed, message):
    for name in ("story", "noise"):
        (tmp_path / name).symlink_to((folder / name).resolve())
    write_system(tmp_path, np.ones((2, 64)), **changed)
    with pytest.raises(ConfigurationError, match=message):
        open_system(tmp_path / "system.json")


def test_a_system_is_compared_with_something(folder, system):
    with pytest.raises(ConfigurationError, match="names nothing but systems"):
        without_systems([str(folder / "system.json")])
    (base,), _ = open_compared({"story": str(folder / "story")}, None)
    with pytest.raises(ConfigurationError, match="SOURCES; these are empty"):
        check_systems({"split": system}, base, {})
    with pytest.raises(ConfigurationError, match="SELECT_ON = 'mixed' a source that it is evaluated on"):
        check_systems({"split": system}, base, {"mixed": "text"}, "mixed")
