"""Nothing in a text stays unseen, and nothing of it is lost."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cptjax.reporting.visible_text import PLAIN, SIGN, SPECIAL, Span, visible


def test_what_cannot_be_seen_is_written_out():
    assert list(visible("a\tb\nc\r\x00\x7f\u200b\u202e\ufeff\xa0\u3000 d")) == [
        Span("a"),
        Span("→\t", SIGN),
        Span("b"),
        Span("↵\n", SIGN),
        Span("c"),
        *(Span(each, SIGN) for each in ("␍", "␀", "␡", "U+200B", "U+202E", "U+FEFF", "U+00A0")),
        Span("\u3000 d"),
    ]
    assert list(visible("")) == []


def test_special_tokens_are_marked_where_they_stand():
    assert list(visible("a</s>b(", ["</s>", "("])) == [Span("a"), Span("</s>", SPECIAL), Span("b"), Span("(", SPECIAL)]


@given(st.text())
def test_plain_spans_hold_nothing_unseen_and_all_that_can_be_seen(text):
    spans = list(visible(text))
    plain = "".join(span.text for span in spans if span.kind == PLAIN)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in plain)
    assert plain == "".join(c for c in text if c in plain)
    assert len(plain) + sum(span.kind == SIGN for span in spans) == len(text)
