"""The choice among candidates for the table of block sizes."""

from cptjax.benchmarks.attention import block_sizes
from cptjax.benchmarks.attention.compare import Case
from cptjax.benchmarks.attention.documents import equal_documents

# Estimated cycles of (queries, keys), forward and backward; the compiler refuses what is not here.
CYCLES = {(256, 256): (90, 50), (256, 512): (70, 80), (512, 256): (80, 40)}


def test_each_pass_takes_the_candidate_with_the_least_work(monkeypatch):
    def compiled(compiles, name, settings):
        blocks = settings["block_sizes"]["queries"], settings["block_sizes"]["keys"]
        return {"forward": blocks} if blocks in CYCLES else {"error": "no room"}

    monkeypatch.setattr(block_sizes, "compiled", compiled)
    monkeypatch.setattr(block_sizes, "complaint", lambda found: found["error"])
    monkeypatch.setattr(
        block_sizes, "our_cycles", lambda found, plan, backward: 1000 * CYCLES[found["forward"]][backward]
    )
    cases = [Case("2 documents", equal_documents(8192, 2), packed=True, allowed=lambda areas: 1.0)]
    lines = block_sizes.table(None, ["v5e"], [128], [256, 512], cases)
    assert lines[0] == '    ("v5e", 128): (256, 512, 512, 256),'
    assert "# v5e, 128, (512, 512): no room" in lines
    assert "# v5e, 128, (256, 512): 70, 80 thousand cycles forward, backward" in lines


def test_where_all_candidates_are_refused_the_table_gets_no_line(monkeypatch):
    monkeypatch.setattr(block_sizes, "compiled", lambda *given: {})
    monkeypatch.setattr(block_sizes, "complaint", lambda found: "refused")
    lines = block_sizes.table(None, ["v4"], [256], [512], [])
    assert lines[0].strip() == '# ("v4", 256): the compiler refuses every candidate'
