"""The job as a user runs it: near-duplicates out of a corpus whose pairs are known, done once, and refusals."""

import gzip
import json

from commands import run_main


def lines_of(path):
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_29_of_797_chinese_statutes_go(shared_data, tmp_path):
    corpus, out = shared_data / "corpora" / "chinese_law.jsonl.gz", tmp_path / "selected"
    settings = ["gin/recipes/minhash.gin", f"INPUT='{corpus}'", "THRESHOLD=0.7", "SHINGLE=5"]
    printed = run_main(*settings, f"OUTPUT_DIR='{out}'")
    assert "kept 768 of 797 documents" in printed and "27 groups" in printed
    given, manifest, kept = (lines_of(path) for path in (corpus, out / "manifest.jsonl", out / "selected.jsonl.gz"))
    assert [line["id"] for line in manifest] == [document["id"] for document in given]
    assert kept == [document for document, line in zip(given, manifest, strict=True) if line["kept"]]
    dropped = [line for line in manifest if not line["kept"]]
    assert len(dropped) == 29 and len({line["cluster"] for line in dropped}) == 27
    stay = {line["cluster"]: line["id"] for line in manifest if line["kept"] and line["cluster"] is not None}
    for line in dropped:
        assert line["stage"] == "near_duplicates" and stay[line["cluster"]] in line["reason"] and 0 < line["score"] <= 1
    for line in manifest:
        assert set(line) == {"id", "kept", "stage", "reason", "cluster", "score"}
    # Done once; and what is there is not mistaken for, nor replaced by, another selection.
    assert "already" in run_main(*settings, f"OUTPUT_DIR='{out}'")
    printed = run_main(*settings, "KEEP='longest'", f"OUTPUT_DIR='{out}'", code=2)
    assert "holds another selection: of other policy" in printed and "remove that folder" in printed


def test_what_cannot_be_selected_from_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    settings = ["gin/recipes/minhash.gin", f"INPUT='{tmp_path / 'empty.jsonl'}'", f"OUTPUT_DIR='{tmp_path / 'out'}'"]
    assert "would write" in run_main(*settings, "--dry_run") and not (tmp_path / "out").exists()
    assert "INPUT is empty" in run_main(*settings, code=2) and not (tmp_path / "out").exists()
    assert "SHINGLE = 'some'" in run_main(*settings, "SHINGLE='some'", code=2)
