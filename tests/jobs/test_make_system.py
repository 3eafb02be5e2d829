"""A system made of checkpoints: centroids are where training text begins, and whoever opens it finds its experts."""

import json

import jax
import numpy as np
import pytest

from cptjax.checkpoints.source import open_checkpoint
from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader
from cptjax.errors import ConfigurationError
from cptjax.evaluation.systems import open_system
from cptjax.jobs.make_system import make_system
from cptjax.models.model import hidden_states
from cptjax.models.numerics import Numerics

PREFIX, LENGTH = 5, 32


@pytest.fixture
def sources(tmp_path):
    texts = {
        "stories": [f"Once upon a time there was a {'very ' * (i % 5)}little cat number {i}." for i in range(30)],
        "numbers": [f"{i} {i + 1} {i + 2} and {i * i}, which is more than {i}" for i in range(30)],
    }
    for name, lines in texts.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), "utf-8")
    return {name: str(tmp_path / f"{name}.jsonl") for name in texts}


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_centroid_is_the_mean_of_the_prefixes_of_training_text(shared_data, sources, tmp_path, capsys, distance):
    story = str(shared_data / "stories260K")
    split = {"validation_fraction": 0.2, "validation_tokens": 200}
    make_system(
        {"stories": story, "numbers": story},
        sources,
        story,
        LENGTH,
        str(tmp_path / "system"),
        prefix_tokens=PREFIX,
        distance=distance,
        documents=7,
        **split,
    )
    system = open_system(tmp_path / "system" / "system.json")
    rows = ensure_rows(sources, story, LENGTH, str(tmp_path / "system" / "rows"), **split)
    opened = open_checkpoint(story)
    params = opened.load_parameters(
        jax.make_mesh((1, 1, 1, 1), ("replica", "fsdp", "context", "tensor"), devices=jax.devices()[:1])
    )
    for number, name in enumerate(("stories", "numbers")):
        tokens: dict[int, list[int]] = {}
        reader = RowReader(rows[name].train)
        for row in reader.pieces(range(len(reader))):
            ends = np.cumsum(row.lengths + 1)
            for ordinal, n, end in zip(row.ordinals.tolist(), row.lengths.tolist(), ends.tolist(), strict=True):
                piece = row.stream[end - n - 1 : end].tolist()  # begins with the last token of the one before
                tokens[ordinal] = tokens[ordinal] + piece[1:] if ordinal in tokens else piece
        vectors = []
        for ordinal in range(7):
            ids = np.array([tokens[ordinal][:PREFIX]], np.int32)
            ones = np.ones_like(ids)
            states = hidden_states(params, opened.config, Numerics(), ids, np.arange(PREFIX)[None], ones)
            vector = np.asarray(states[0], np.float64).mean(axis=0)
            vectors.append(vector / np.linalg.norm(vector) if distance == "cosine" else vector)
        np.testing.assert_allclose(system.centroids[number], np.mean(vectors, axis=0), rtol=2e-4, atol=2e-5)
    given = ({"stories": story, "numbers": story}, sources, story, LENGTH, str(tmp_path / "system"), PREFIX, distance)
    make_system(*given, documents=7, **split)
    printed = capsys.readouterr().out
    assert "holds this system already" in printed
    with pytest.raises(ConfigurationError, match="other documents"):
        make_system(*given, documents=8, **split)
    assert "stories: 7 training documents, 100.0% of them nearest to their own expert" in printed
    assert system.prefix == PREFIX and system.distance == distance and len(system.experts) == 2


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"experts": {"stories": "x"}}, "each expert is named by the source"),
        ({"distance": "manhattan"}, "DISTANCE = 'manhattan'"),
        ({"prefix_tokens": 0}, "PREFIX_TOKENS"),
        ({"embedder": "/nowhere"}, "/nowhere"),
        ({"experts": {"stories": "/nowhere/too", "numbers": "/nowhere/too"}}, "/nowhere/too"),
    ],
)
def test_what_cannot_be_a_system_is_refused(shared_data, sources, tmp_path, changed, message):
    story = str(shared_data / "stories260K")
    given = {
        "experts": {"stories": story, "numbers": story},
        "sources": sources,
        "embedder": story,
        "sequence_length": LENGTH,
        "output_dir": str(tmp_path / "system"),
    }
    with pytest.raises(ConfigurationError, match=message):
        make_system(**given | changed, dry_run=True)
    with pytest.raises(ConfigurationError, match=message):
        make_system(**given | changed)
    assert not (tmp_path / "system" / "system.json").exists()
