"""The job `generate`: lines in, lines out, refused before anything starts, and resumed where it was stopped."""

import json

import pytest
from commands import run_main, start

from cptjax.errors import ConfigurationError
from cptjax.jobs import generate as job
from cptjax.training.signals import Stopped

TEXTS = ["Once upon a time", "Lily saw  a cat.", "A dog"]


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(shared_data, tmp_path, name="out.jsonl", lines=None, **settings):
    source = write_lines(tmp_path / "in.jsonl", lines or [{"text": text} for text in TEXTS])
    output = tmp_path / name
    given = {"max_new_tokens": 12, "mesh": {"fsdp": 8}} | settings
    job.generate(str(shared_data / "stories260K"), source, str(output), **given)
    return read_lines(output)


@pytest.mark.slow
def test_the_command_writes_the_published_story(shared_data, tmp_path):
    story = [int(token) for token in (shared_data / "stories260K" / "greedy_256_tokens.txt").read_text().split()]
    source = write_lines(tmp_path / "in.jsonl", [{"tokens": [1]}, {"text": "Once upon a time"}])
    files = [f"CHECKPOINT='{shared_data / 'stories260K'}'", f"INPUT='{source}'", f"OUTPUT='{tmp_path / 'out.jsonl'}'"]
    printed = run_main("gin/jobs/generate.gin", *files, "MAX_NEW_TOKENS=256", devices=2)
    assert f"wrote {tmp_path / 'out.jsonl'}" in printed
    first, second = read_lines(tmp_path / "out.jsonl")
    assert first["tokens"] == story and first["text"].startswith("Once upon a time, there was a")
    assert second["tokens"][:257] == story and second["text"].startswith(first["text"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.slow
def test_two_processes_write_what_one_does(shared_data, tmp_path):
    lines = [{"text": text} for text in TEXTS] + [{"tokens": [1, 400 + i]} for i in range(4)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    for processes in (1, 2):
        files = [f"INPUT='{source}'", f"OUTPUT='{tmp_path / f'{processes}.jsonl'}'"]
        settings = [f"CHECKPOINT='{shared_data / 'stories260K'}'", "TEMPERATURE=0.9", "TOP_P=0.95", "MAX_NEW_TOKENS=20"]
        running = start(processes, "gin/jobs/generate.gin", *files, *settings, devices=4 // processes)
        printed = [process.communicate(timeout=300)[0] for process in running]
        assert [process.returncode for process in running] == [0] * processes, printed
        assert sum("wrote " in each for each in printed) == 1
    assert (tmp_path / "2.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_a_line_is_its_prompt_and_what_follows(shared_data, tmp_path):
    found = run(shared_data, tmp_path, temperature=0.8, top_p=0.9)
    for text, line in zip(TEXTS, found, strict=True):
        assert line["tokens"][0] == 1 and line["text"].startswith(text) and len(line["text"]) > len(text)
    again = run(shared_data, tmp_path, "again.jsonl", temperature=0.8, top_p=0.9, mesh={"fsdp": 2, "tensor": 4})
    assert again == found
    alone = run(shared_data, tmp_path, "alone.jsonl", [{"text": TEXTS[0]}], temperature=0.8, top_p=0.9)
    assert alone == found[:1]
    other = run(shared_data, tmp_path, "other.jsonl", temperature=0.8, top_p=0.9, seed=1)
    assert all(a != b for a, b in zip(found, other, strict=True))


def test_stopped_it_goes_on_and_ends_with_the_same_bytes(shared_data, tmp_path, monkeypatch):
    lines = [{"tokens": [1, 400 + i]} for i in range(5)]
    settings = {"temperature": 1.0, "seed": 3, "lines": lines}
    whole = run(shared_data, tmp_path, "whole.jsonl", **settings)
    monkeypatch.setattr(job, "WINDOW", 2)
    read, continued = [], job.continue_prompts

    def stopped_in_the_second(*given):
        if len(read) == 1:
            raise Stopped("stopped by SIGTERM")
        read.append(len(given[4]))
        return continued(*given)

    monkeypatch.setattr(job, "continue_prompts", stopped_in_the_second)
    with pytest.raises(Stopped):
        run(shared_data, tmp_path, "parts.jsonl", **settings)
    assert not (tmp_path / "parts.jsonl").exists() and read == [2]
    with pytest.raises(ConfigurationError, match=r"(?s)beginning of another file.*SEED: 3 then, 4 now"):
        run(shared_data, tmp_path, "parts.jsonl", **settings | {"seed": 4})
    monkeypatch.setattr(job, "continue_prompts", lambda *given: read.append(len(given[4])) or continued(*given))
    assert run(shared_data, tmp_path, "parts.jsonl", **settings) == whole
    assert read == [2, 2, 1] and (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "parts.jsonl.parts").exists()


@pytest.mark.parametrize(
    "lines, settings, message",
    [
        ([{"tokens": [1]}, {"tokens": []}], {}, r"sequence 2 is empty"),
        ([{"tokens": [1, 512]}], {}, r"line 1: token 512 is not in the model's vocabulary of 512"),
        ([{"tokens": [1]}], {"temperature": -1}, r"TEMPERATURE = -1"),
        ([{"tokens": [1]}], {"temperature": 1e-46}, r"TEMPERATURE = 1e-46; it is 0 \(the likeliest token\), or"),
        ([{"tokens": [1]}], {"seed": 2**31}, r"SEED = 2147483648"),
        ([{"tokens": [1]}], {"top_p": 0.0}, r"TOP_P = 0.0"),
        ([{"tokens": [1]}], {"max_new_tokens": -2}, r"MAX_NEW_TOKENS = -2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(shared_data, tmp_path, lines, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        run(shared_data, tmp_path, lines=lines, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_the_file_that_is_read_is_not_written_over_by_another_name(shared_data, tmp_path, monkeypatch):
    source = write_lines(tmp_path / "in.jsonl", [{"tokens": [1]}])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"OUTPUT = 'in.jsonl' is INPUT"):
        job.generate(str(shared_data / "stories260K"), source, "in.jsonl", 4)
