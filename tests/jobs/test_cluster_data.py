"""A corpus is cut into its domains: every document in one file, found done again, and what cannot be cut is refused."""

import gzip
import json

import pytest

from cptjax.errors import ConfigurationError
from cptjax.jobs.cluster_data import cluster_data
from cptjax.selection.embedders import Embedder

WORDS = {
    "kitchen": "salt bread oven butter flour",
    "harbour": "ship rope anchor sail tide",
    "court": "judge law plea oath jury",
}


@pytest.fixture
def corpus(tmp_path):
    """Sixty documents of three kinds, in turns; twice as many of the last."""
    kinds = [*WORDS, "court"]
    lines = []
    for i in range(60):
        words = WORDS[kinds[i % 4]].split()
        text = " ".join(words[(i + k * (1 + i % 3)) % 5] for k in range(20))
        lines.append(json.dumps({"id": f"d{i}", "text": text, "kind": kinds[i % 4]}))
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def clusters(folder):
    return [
        [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]
        for path in sorted(folder.glob("cluster_*.jsonl.gz"))
    ]


def test_clusters_are_the_kinds_and_hold_every_document_once(corpus, tmp_path, capsys):
    # No more dimensions than kinds: in further ones lies what tells documents of a kind apart, turned as the solver likes.
    given = (corpus, str(tmp_path / "out"), Embedder("tf-idf", dimensions=3), 3, "kind")
    cluster_data(*given)
    found = clusters(tmp_path / "out")
    assert [len(each) for each in found] == [30, 15, 15]  # the largest first
    assert all(len({document["kind"] for document in each}) == 1 for each in found)
    assert sorted(document["id"] for each in found for document in each) == sorted(f"d{i}" for i in range(60))
    record = json.loads((tmp_path / "out" / "clusters.json").read_text())
    assert (record["purity"], record["adjusted_rand"]) == (1.0, 1.0) and record["labels"] == sorted(WORDS)
    assert sum(record["bytes"]) == sum(len(document["text"].encode()) for each in found for document in each)
    assert "purity 1.000, adjusted Rand index 1.000" in capsys.readouterr().out
    cluster_data(*given)
    assert "holds this clustering already" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="other label"):
        cluster_data(*given[:4])
    with pytest.raises(ConfigurationError, match="holds another clusters .other clusters"):
        cluster_data(*given[:3], 2, "kind")


def test_random_vectors_find_nothing(corpus, tmp_path):
    cluster_data(corpus, str(tmp_path / "out"), Embedder("random", dimensions=8), 3, "kind")
    assert abs(json.loads((tmp_path / "out" / "clusters.json").read_text())["adjusted_rand"]) < 0.15


@pytest.mark.parametrize(
    "count, label, message",
    [
        (1, None, "CLUSTERS"),
        (61, None, "INPUT has 60 documents"),
        (3, "author", "document 'd0' has no such field; it has kind"),
    ],
)
def test_what_cannot_be_clustered_is_refused(corpus, tmp_path, count, label, message):
    with pytest.raises(ConfigurationError, match=message):
        cluster_data(corpus, str(tmp_path / "out"), Embedder("tf-idf", dimensions=8), count, label)
    assert not list(tmp_path.glob("out/cluster_*"))


def test_clusters_that_stay_empty_are_refused_and_stale_files_go(tmp_path):
    path = tmp_path / "alike.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": f"d{i}", "text": "salt bread" if i % 2 else "ship rope", "k": i % 2}) + "\n"
            for i in range(12)
        )
    )
    given = (str(path), str(tmp_path / "out"), Embedder("tf-idf", dimensions=2))
    with pytest.raises(ConfigurationError, match="CLUSTERS = 4, and 2 of them hold no document"):
        cluster_data(*given, 4, "k")
    (tmp_path / "out" / "cluster_7.jsonl.gz").write_bytes(b"")  # of a clustering that was stopped
    cluster_data(*given, 2, "k")
    assert [len(each) for each in clusters(tmp_path / "out")] == [6, 6]
