"""Names on the Hugging Face Hub: a cache laid out as `huggingface_hub` lays it out, and a Hub of our own on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import jax
import numpy as np
import pytest
from etils import epath
from huggingface_hub import constants

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hub import find_tokenizer, is_hub_name
from cptjax.checkpoints.source import open_checkpoint
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.jobs.merge import merge
from cptjax.models.config import DecoderConfig
from cptjax.models.families.llama import LLAMA
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

TINY = DecoderConfig(vocabulary=16, hidden=8, layers=1, heads=2, kv_heads=1, head_dim=4, mlp=8)
COMMIT, LATER = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture
def model(tmp_path):
    """The files of a checkpoint."""
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    export_folder(initialize(TINY, 0, mesh), TINY, LLAMA, None, None, tmp_path / "made")
    return {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def place(cache, files, name="acme/tiny", commit=COMMIT, revision="main"):
    """A snapshot in the cache: blobs by hash, links to them, and the commit that the revision was when last asked."""
    repository = cache / ("models--" + name.replace("/", "--"))
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    for file, content in files.items():
        blob = hashlib.sha256(content).hexdigest()
        (repository / "blobs" / blob).write_bytes(content)
        (repository / "snapshots" / commit / file).symlink_to(f"../../blobs/{blob}")


def test_a_name_is_told_from_a_path():
    for name in ("org/name", "org/name@main", "meta-llama/Llama-3.1-8B@0e9e39f", "org/name@refs/pr/1"):
        assert is_hub_name(name), name
    for path in ("/data/base", "base", "a/b/c", "./org/name", "../org/name", "~/org", "gs://bucket/x", "org/name@", ""):
        assert not is_hub_name(path), path


def test_what_is_missing_in_a_folder_that_is_here_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert not is_hub_name("runs/typo") and is_hub_name("runs/typo@main")
    with pytest.raises(ConfigurationError, match="There is nothing at 'runs/typo'"):
        open_checkpoint("runs/typo")


def test_a_snapshot_in_the_cache_needs_no_network_and_is_pinned(cache, model):
    place(cache, model)
    for name in ("acme/tiny", "acme/tiny@main", f"acme/tiny@{COMMIT}"):
        opened = open_checkpoint(name)
        assert str(opened.path) == opened.lineage.origin.path == f"acme/tiny@{COMMIT}"
        assert opened.config == TINY and opened.lineage.origin.kind == "hugging_face"
    # The lineage's own name opens it again, although the branch has moved on since.
    place(cache, model, commit=LATER)
    assert str(open_checkpoint("acme/tiny").path) == f"acme/tiny@{LATER}"
    again = open_checkpoint(opened.lineage.origin.path)
    assert again.model_folder.name == COMMIT and again.identity == opened.identity
    params = again.load_parameters(build_mesh(None))
    assert all(np.isfinite(value).all() for value in params.values())


def test_a_folder_of_that_name_wins(cache, model, tmp_path):
    place(cache, model)
    folder = tmp_path / "acme" / "tiny"
    folder.mkdir(parents=True)
    for name, content in model.items():
        (folder / name).write_bytes(content)
    assert str(open_checkpoint("acme/tiny").path) == "acme/tiny"


@pytest.mark.parametrize("name", ["acme/absent", "acme/tiny@v2", f"acme/tiny@{LATER}"])
def test_what_is_in_no_cache_says_how_to_name_a_folder(cache, model, name):
    place(cache, model)
    with pytest.raises(ConfigurationError) as refusal:
        open_checkpoint(name)
    message = str(refusal.value)
    assert f"nothing at '{name}'" in message and str(cache) in message and "HF_HUB_OFFLINE" in message
    assert f"hf download {name.partition('@')[0]} --local-dir FOLDER" in message


def test_a_cached_snapshot_without_a_file_names_it(cache, model):
    place(cache, {name: content for name, content in model.items() if name != "config.json"})
    with pytest.raises(ConfigurationError, match="holds no config.json"):
        open_checkpoint("acme/tiny")
    place(cache, {"config.json": model["config.json"], "pytorch_model.bin": b"\x80\x02."}, "acme/old")
    with pytest.raises(ConfigurationError, match=r"only as pickles \(pytorch_model.bin\)"):
        open_checkpoint("acme/old")


def test_damage_in_a_snapshot_is_named_as_in_any_folder(cache, model):
    place(cache, model | {"model.safetensors": model["model.safetensors"][:-3]}, "acme/cut")
    with pytest.raises(CptjaxError, match="(?s)acme--cut.*model.safetensors is truncated: tensor '.*_proj.weight'"):
        open_checkpoint("acme/cut")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    shards = {"config.json": model["config.json"], "model.safetensors.index.json": json.dumps(index).encode()}
    place(cache, shards, "acme/half")
    with pytest.raises(CptjaxError, match="acme--half.*names the shard 'model-00001-of-00002.*'model.norm.weight'"):
        open_checkpoint("acme/half")


def test_a_tokenizer_may_be_a_name_too(cache, tmp_path):
    place(cache, {"tokenizer.model": b"pieces", "config.json": b"{}"})
    found = find_tokenizer("acme/tiny@main")
    assert (epath.Path(found) / "tokenizer.model").read_bytes() == b"pieces" and COMMIT in found
    for given in ("acme", "/nowhere/at all", "../acme/tiny", "acme/tiny/tokenizer.model"):
        assert find_tokenizer(given) == given  # no name: whoever opens it says what is wrong with the path
    with pytest.raises(
        ConfigurationError, match="(?s)nothing at 'acme/none'.*hf download acme/none --local-dir FOLDER"
    ):
        find_tokenizer("acme/none")
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    assert find_tokenizer("acme/tiny") == "acme/tiny"


def test_a_merge_of_names_records_the_commits(cache, model, tmp_path):
    place(cache, model)
    place(cache, model, "acme/other", LATER)
    merge(["acme/tiny", "acme/other"], str(tmp_path / "merged"))
    record = json.loads((tmp_path / "merged" / "cptjax_export.json").read_text())
    names = [f"acme/tiny@{COMMIT}", f"acme/other@{LATER}"]
    assert record["source"] == " + ".join(names)
    assert [lineage["origin"]["path"] for lineage in record["lineages"]] == names


# ---- a Hub of our own


class Hub(BaseHTTPRequestHandler):
    """What `huggingface_hub` asks of the Hub: the commit of a branch, the list of files, each file."""

    repositories: dict = {}
    asked: list = []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0].strip("/").split("/")
        self.asked.append(path[-1])
        name = "/".join(path[2:4] if path[:2] == ["api", "models"] else path[:2])
        files = self.repositories.get(name)
        if files is None:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if path[:2] == ["api", "models"] and "tree" in path:
            tree = [{"type": "file", "path": f, "size": len(c), "oid": _oid(c)} for f, c in files.items()]
            return self.answer(200, json.dumps(tree).encode())
        if path[:2] == ["api", "models"]:
            about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            return self.answer(200, json.dumps(about).encode())
        content = files["/".join(path[4:])]
        return self.answer(200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT})

    def answer(self, code, content, headers=()):
        self.send_response(code)
        for header, value in {**dict(headers), "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def _oid(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(cache, monkeypatch):
    server = ThreadingHTTPServer(("localhost", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://localhost:{server.server_address[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(Hub, "repositories", {})
    monkeypatch.setattr(Hub, "asked", [])
    yield Hub
    server.shutdown()
    server.server_close()


def test_only_what_is_read_is_downloaded_and_the_next_time_needs_no_network(hub, model, monkeypatch):
    further = {"pytorch_model.bin": b"pickle", "consolidated.safetensors": b"again", "README.md": b"read me"}
    hub.repositories["acme/tiny"] = model | further | {"tokenizer.model": b"pieces", "onnx/model.onnx": b"graph"}
    opened = open_checkpoint("acme/tiny")
    assert str(opened.path) == f"acme/tiny@{COMMIT}"
    assert {path.name for path in opened.model_folder.iterdir()} == {*model, "tokenizer.model"}
    assert "pytorch_model.bin" not in hub.asked and "README.md" not in hub.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_checkpoint("acme/tiny").path == opened.path


def test_of_a_tokenizers_repository_no_weights_are_downloaded(hub, model):
    hub.repositories["acme/tiny"] = model | {"tokenizer.model": b"pieces", "tokenizer_config.json": b"{}"}
    found = {path.name for path in epath.Path(find_tokenizer("acme/tiny")).iterdir()}
    assert found == {"config.json", "tokenizer.model", "tokenizer_config.json"} and "model.safetensors" not in hub.asked


def test_a_repository_of_pickles_is_refused_and_not_downloaded(hub, model):
    hub.repositories["acme/old"] = {"config.json": model["config.json"], "pytorch_model.bin": b"pickle"}
    with pytest.raises(ConfigurationError, match=r"'acme/old' .* only as pickles \(pytorch_model.bin\)"):
        open_checkpoint("acme/old")
    assert "pytorch_model.bin" not in hub.asked


def test_a_repository_that_the_hub_does_not_have(hub):
    with pytest.raises(ConfigurationError, match="(?s)nothing at 'acme/none'.*no such repository, or a private one"):
        open_checkpoint("acme/none")
