"""Questions as texts and tokens: rotations, examples that leak nothing, and the cut between context and choice."""

import json

import pytest
from tokenizers import Tokenizer as Trained
from tokenizers import decoders, models, pre_tokenizers, trainers

from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.asking import CLOZE, LETTER, ask, divided, prompts
from cptjax.evaluation.exams.examples import Examples, examples_of, is_set_aside
from cptjax.evaluation.exams.questions import Question, open_exam
from cptjax.evaluation.exams.templates import Template

WHICH = Question("q", " Which one?\n", ("red", "green ", "blue"), 1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Bytes, and one piece "t " that joins the end of a context and the beginning of a choice; no BOS."""
    folder = tmp_path_factory.mktemp("words")
    trained = Trained(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=258, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(["t t t t "] * 9, trainer)
    trained.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return open_tokenizer(str(folder))


def test_every_choice_stands_once_at_every_letter():
    asked = prompts(WHICH, LETTER, Template(), None, 0, prior=True)
    assert [prompt.context for prompt in asked[:3]] == [
        "Which one?\nA. red\nB. green\nC. blue\nAnswer:",
        "Which one?\nA. blue\nB. red\nC. green\nAnswer:",
        "Which one?\nA. green\nB. blue\nC. red\nAnswer:",
    ]
    assert [prompt.context for prompt in asked[3:]] == [prompt.context[11:] for prompt in asked[:3]]
    assert all(prompt.continuations == [" A", " B", " C"] for prompt in asked)


def test_the_cloze_form_scores_the_texts_with_and_without_the_question():
    asked = prompts(WHICH, CLOZE, Template(), None, 0, prior=True)
    assert [(prompt.context, prompt.continuations) for prompt in asked] == [
        ("Which one?", [" red", " green", " blue"]),
        ("Answer:", [" red", " green", " blue"]),
    ]
    going_on = Question("q", "It was ", ("red ", "green"), 0, separator="")
    asked = prompts(going_on, CLOZE, Template(), None, 0, prior=True)
    assert [(prompt.context, prompt.continuations) for prompt in asked] == [
        ("It was ", ["red ", "green"]),
        ("", ["red ", "green"]),
    ]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"question": "{query}"}, "{question}"),
        ({"choice": "{choice}"}, "{choice} and {letter}"),
        ({"letter": "{letter!r}"}, "{letter}"),
        ({"answer": "Answer {letter}:"}, "nothing in braces"),
        ({"context": "{question"}, "expected '}'"),
        ({"between": 3}, "it is a text"),
        ({"answer": ""}, "answer is empty"),
    ],
)
def test_a_template_that_cannot_be_is_refused(changed, message):
    with pytest.raises(ConfigurationError) as error:
        Template(**changed)
    assert message in str(error.value)


def test_context_and_choice_are_cut_where_all_choices_still_agree(tokenizer):
    """A merge across the boundary belongs to the choice; its tokens are those of the whole text, whatever they are."""
    texts = ["is it", "is it red?", "is it green?"]
    context, *wholes = tokenizer.encode_batch(texts)
    found = divided(context, wholes, tokenizer)
    assert [[*found.given, *mine] for mine in found.scored] == wholes
    assert tokenizer.decode(found.given) == "is i" and tokenizer.decode(found.scored[0]) == "t red?"
    context, *wholes = tokenizer.encode_batch(["is", "is red", "is it"])
    plain = divided(context, wholes, tokenizer)
    assert tokenizer.decode(plain.given) == "is" and [len(each) for each in plain.scored] == [4, 3]


def test_a_text_that_begins_with_a_choice_follows_what_begins_documents(tokenizer, tmp_path):
    found = divided([], [[5, 6], [7]], tokenizer)
    assert found.given == [tokenizer.eos] and found.scored == [[5, 6], [7]]
    assert divided([4, 5], [[4, 5], [4, 5, 6]], tokenizer).scored == [[5], [5, 6]]  # of each something is scored


def test_a_long_context_loses_its_beginning_and_a_long_choice_is_refused(tokenizer):
    question = Question("q", "a b c d e f g h i j k l m n o p", ("x", "y z"), 0)
    (whole,) = ask([question], CLOZE, Template(), tokenizer, 1000, prior=False)
    (short,) = ask([question], CLOZE, Template(), tokenizer, 16, prior=False)
    (long,), (cut,) = whole.asks, short.asks
    assert cut.cut and not long.cut and cut.scored == long.scored
    assert len(cut.given) + max(map(len, cut.scored)) - 1 == 16 and long.given[-len(cut.given) :] == cut.given
    with pytest.raises(ConfigurationError, match="question 'q' has a choice of 4 tokens"):
        list(ask([question], CLOZE, Template(), tokenizer, 3, prior=False))


def write_exam(path, questions):
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return open_exam(str(path))


def numbered(i, text=None):
    text = text or f"Of the {i} riders from town number {i * i} how many came back before the year {i * 7} ended?"
    return {"id": f"q{i}", "question": text, "choices": [f"{i}", f"{i + 1}"], "answer": i % 2}


def test_examples_are_never_the_question_nor_like_it(tmp_path):
    exam = write_exam(tmp_path / "exam.jsonl", [numbered(i) for i in range(60)])
    examples = examples_of(exam, 0.3, seed=4)
    aside = [question for question in exam.read() if is_set_aside(question, 0.3)]
    scored = [question for question in exam.read() if not is_set_aside(question, 0.3)]
    assert 8 < len(aside) < 30
    for question in scored:
        drawn = examples.draw(question, 5)
        assert len({each.id for each in drawn}) == 5 and {each.id for each in drawn} <= {each.id for each in aside}
        assert drawn == examples_of(exam, 0.3, seed=4).draw(question, 5)
    assert any(examples.draw(q, 5) != examples_of(exam, 0.3, seed=5).draw(q, 5) for q in scored)
    assert any(examples.draw(q, 5) != examples.draw(scored[0], 5) for q in scored)
    # The same text under another id, in other letters, or with a word exchanged, is not drawn.
    one = aside[0]
    others = [Question("another", text, ("a", "b"), 0) for text in (one.question.upper(), "  " + one.question)]
    others.append(Question("another", one.question.replace("ended", "began"), ("a", "b"), 0))
    for like in others:
        assert one.id not in {each.id for each in examples.draw(like, len(aside) - 1)}
        with pytest.raises(ConfigurationError, match=f"only {len(aside) - 1} questions are set aside"):
            examples.draw(like, len(aside))


def test_the_same_question_twice_is_on_one_side():
    for i in range(50):
        one, other = Question("one", f"Is {i} even?", ("a", "b"), 0), Question("two", f" is {i}  EVEN?", ("c", "d"), 1)
        assert is_set_aside(one, 0.5) == is_set_aside(other, 0.5)


def test_examples_stand_before_the_question_in_its_form():
    example = Question("e", "How many?", ("two", "six"), 1)
    examples = Examples([example], seed=0)
    (cloze,) = prompts(WHICH, CLOZE, Template(), examples, 1, prior=False)
    assert cloze.context == "How many? six\n\nWhich one?"
    letters = prompts(WHICH, LETTER, Template(), examples, 1, prior=False)
    by = examples.rotation(WHICH, example)
    choices, right = (("A. two\nB. six", "B"), ("A. six\nB. two", "A"))[by]
    before = f"How many?\n{choices}\nAnswer: {right}\n\n"
    assert all(prompt.context.startswith(before + "Which one?\nA. ") for prompt in letters)
    asked_about = [Question(f"q{i}", "x", ("a", "b"), 0) for i in range(40)]
    assert {examples.rotation(question, example) for question in asked_about} == {0, 1}
