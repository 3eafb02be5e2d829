"""Task files of the lm-evaluation-harness, written where a test wants them: three tasks on the world of small stories."""

import json
from pathlib import Path

NAMES = ("Lily", "Tom", "Ben", "Anna")
THINGS = ("ball", "cat", "tree", "cake", "boat", "bird")
ENDS = ("was very happy.", "the of to it sad.", "jump jump blue run.", 'said, "Thank you!"')


def questions() -> list[dict]:
    """Sixteen beginnings of stories, each with four ways to go on, of which one is said to be right."""
    found = []
    for n in range(16):
        name, thing = NAMES[n % 4], THINGS[n % 6]
        context = f"Once upon a time, there was a little girl named {name}. She had a {thing}. {name}"
        choices = ENDS[n % 4 :] + ENDS[: n % 4]
        found.append({"question": context, "choices": list(choices), "answer": n % 3, "letter": "ABCD"[n % 4]})
    return found


def documents() -> list[dict]:
    """Two short texts, and one that is longer than stories260K's 512 positions."""
    long = " ".join(f"Then {NAMES[n % 4]} saw a {THINGS[n % 6]} and went to play." for n in range(60))
    return [{"text": text} for text in ("Lily and Tom went to the park.", "A big dog ran fast.\nIt was hot.", long)]


TASKS = {
    "tiny_choices": """
task: tiny_choices
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: " "
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
    "tiny_letters": """
task: tiny_letters
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nA. yes\\nB. no\\nC. cat\\nD. dog\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: letter
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "tiny_rolling": """
task: tiny_rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: bits_per_byte}
""",
    "tiny_written": """
task: tiny_written
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["."], max_gen_toks: 24, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
}


def write_tasks(folder: Path) -> Path:
    """Writes the task files and their data into `folder`."""
    folder.mkdir(parents=True)
    for name, rows in (("questions", questions()), ("documents", documents())):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, task in TASKS.items():
        data = folder / f"{'documents' if 'rolling' in name else 'questions'}.jsonl"
        place = {"data_files": {"test": str(data)}, "cache_dir": str(folder.parent / "cache")}
        head = f"dataset_path: json\ndataset_kwargs: {json.dumps(place)}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(head + task.lstrip(), encoding="utf-8")
    return folder
