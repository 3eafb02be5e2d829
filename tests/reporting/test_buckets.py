"""The same folders in a bucket: real epath over real fsspec, with fsspec's own in-memory store standing at gs://."""

import json

import fsspec
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from cptjax.checkpoints.digests import first_damage, read_digests, write_digests
from cptjax.errors import ConfigurationError
from cptjax.files import write_file
from cptjax.reporting.folder import RunFolder
from cptjax.reporting.metrics import MetricsWriter, read_metrics


class Bucket(MemoryFileSystem):
    """fsspec's memory under the bucket protocol: a name for it, nothing else."""

    protocol = ("gcs", "gs")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("gs://"))


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket, reached as where only the core is installed: epath would go through TensorFlow if it could."""
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    monkeypatch.setattr(fsspec, "filesystem", lambda protocol, **options: {"gcs": Bucket}[protocol](**options))
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield epath.Path("gs://bucket")
    backend.fsspec_backend._get_filesystem.cache_clear()
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_files_are_written_aside_and_renamed(bucket):
    write_file(bucket / "f.txt", "one")
    write_file(bucket / "f.txt", "two ☃")
    assert (bucket / "f.txt").read_text() == "two ☃"
    assert [p.name for p in bucket.iterdir()] == ["f.txt"]


def test_a_run_folder(bucket):
    folder = RunFolder("gs://bucket/runs/first")
    folder.start("a.b = 1", ["cptjax"], {})
    folder.finish({"steps": 3})
    assert RunFolder("gs://bucket/runs/first").finished()["steps"] == 3
    assert json.loads((folder.path / "run.json").read_text())["starts"][0]["command"] == ["cptjax"]
    write_file(bucket / "other" / "thesis.tex", "x")
    with pytest.raises(ConfigurationError, match="thesis.tex"):
        RunFolder("gs://bucket/other")


def test_metrics_are_copied_at_flush_and_go_on_after_a_resume(bucket):
    writer = MetricsWriter(bucket / "run")
    for step in (1, 2, 3):
        writer.log(step, {"loss": 1.0 / step})
    assert not (bucket / "run" / "metrics.jsonl").exists()
    writer.flush()
    assert [line["step"] for line in read_metrics(bucket / "run" / "metrics.jsonl")] == [1, 2, 3]
    writer.log(4, {"loss": 0.0})  # lost: killed before the next flush
    resumed = MetricsWriter(bucket / "run", resume_at_step=2)
    resumed.log(3, {"loss": 1 / 3})
    resumed.close()
    assert [line["step"] for line in read_metrics(bucket / "run" / "metrics.jsonl")] == [1, 2, 3]
    assert len(list((bucket / "run" / "tensorboard").iterdir())) == 2
    writer.close()


def test_digests(bucket):
    (bucket / "step" / "state" / "d").mkdir(parents=True)
    (bucket / "step" / "state" / "d" / "x").write_bytes(b"123")
    (bucket / "step" / "metadata.json").write_text("{}")
    write_digests(bucket / "step")
    assert set(read_digests(bucket / "step")) == {"metadata.json", "state/d/x"}
    assert first_damage(bucket / "step") is None
    (bucket / "step" / "state" / "d" / "x").write_bytes(b"124")
    assert "other bytes" in first_damage(bucket / "step").reason
    (bucket / "step" / "state" / "d" / "x").unlink()
    assert first_damage(bucket / "step").reason == "is missing"
