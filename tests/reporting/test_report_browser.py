"""report.html as a browser shows it, on a phone and on a desk: nothing overflows, nothing is cut off, nothing complains."""

import html
import re

import pytest
from browser_window import WIDTHS, result_of, shown, started
from run_folders import evaluation_line, evaluation_rows, metrics, step_line, write_run

from cptjax.reporting.report import page
from cptjax.reporting.run_content import read_run


def one_run(folder):
    return page([read_run(write_run(folder / "run"))])


def killed_run(folder):
    return page([read_run(write_run(folder / "run", metrics(7), finished=False, saved=None))])


def spiky_run(folder):
    """Numbers of every size, and some that are none."""
    lines = metrics()
    lines[3:6] = [
        step_line(step, loss=10.0**step, gradient_norm=1e-6 * 30**step, tokens_per_second=5e6) for step in (3, 4, 5)
    ]
    lines[9] = step_line(9, loss="nan", gradient_norm="inf", skipped=1.0)
    return page(
        [read_run(write_run(folder / "run", [{**line, "tokens_read": 10**9 * line["step"]} for line in lines]))]
    )


def comparison(
    folder, labels=("before", "without replay", "with replay"), domains=("general", "target", "never_replayed")
):
    runs = []
    for number, label in enumerate(labels[1:]):
        losses = {name: (4.0 + i, 3.5 + 0.3 * number + i) for i, name in enumerate(domains)}
        lines = [
            evaluation_line(0, 0.0, losses),
            *(step_line(step) for step in range(1, 20)),
            evaluation_line(20, 1.0, losses),
        ]
        runs.append(read_run(write_run(folder / f"run{number}", lines), label))
    arms = {label: {name: 3.0 + i + j / 7 for i, name in enumerate(domains)} for j, label in enumerate(labels)}
    return page(runs, evaluation_rows(arms), targets=domains[:1])


def long_labels(folder):
    """Names without a place to break, and one with no letter of ours."""
    labels = ("base_" + "x" * 120, "a_run_with_a_name_that_is_" + "very_" * 20 + "long", "再訓練 " * 20, "<b>&amp;</b>")
    return comparison(folder, labels, ("target_" + "y" * 120, "never/replayed/" + "z/" * 60))


def many_runs(folder):
    return comparison(folder, ("before", *(f"replay {n}%" for n in range(0, 80, 10))))


@pytest.mark.parametrize("written", [one_run, killed_run, spiky_run, comparison, long_labels, many_runs])
def test_on_a_phone_and_on_a_desk(browser, tmp_path, written):
    measured, console = shown(browser, tmp_path, written(tmp_path))
    assert not console
    for found, width in zip(measured, WIDTHS, strict=True):
        assert found["width"] == width and found["charts"] >= 5
        assert found["scroll"] <= width, found["wide"]
        for complaint in ("wide", "flat", "small", "cut", "overlapping"):
            assert not found[complaint], (width, complaint)


def test_the_measure_finds_what_is_wrong(browser, tmp_path):
    wrong = """<!DOCTYPE html><body><div style="width: 2000px">wide</div><svg class="chart" viewBox="0 0 100 100" width="50">
    <text x="90" y="50" font-size="9">cut off</text><text x="1" y="50" font-size="30">one</text>
    <text x="5" y="52" font-size="30">two</text></svg><svg width="0" height="0"></svg>"""
    (found, *_), _ = shown(browser, tmp_path, wrong)
    assert found["scroll"] > found["width"] and found["wide"] and len(found["flat"]) == 1
    assert found["small"] == ["cut off"] and found["cut"] == ["cut off"] and found["overlapping"] == ["one | two"]


def test_the_page_allows_no_script_and_loads_nothing(browser, tmp_path):
    """A label that became markup would do nothing, and be noticed here."""
    text = one_run(tmp_path).replace(
        "</main>", '<script>console.log("ran")</script><img src="http://127.0.0.1:9/x.png"></main>'
    )
    _, console = shown(browser, tmp_path, text)
    assert console and not [line for line in console if '"ran"' in line]
    assert all("Content Security Policy" in line for line in console)


def test_printed_it_shows_what_is_folded_and_cuts_off_nothing(browser, tmp_path):
    """Under the rules for print and at the width of A4 between its margins, everything is inside the page."""
    folder = write_run(tmp_path / "run")
    (folder / "config.gin").write_text("x = '" + "word" * 200 + "'\nLAST_SETTING = 1\n")
    pages = [page([read_run(folder)]), comparison(tmp_path), many_runs(tmp_path / "many")]
    script = """window.onload = () => {
      const view = document.querySelector('iframe').contentDocument, paper = view.documentElement.getBoundingClientRect().right;
      const folded = [...view.querySelectorAll('details')], height = each => each.getBoundingClientRect().height;
      const closed = folded.map(height);
      for (const rule of view.styleSheets[0].cssRules) if (rule.media) rule.media.mediaText = 'all';
      const boxes = [...view.querySelectorAll('.scroll, pre, table, td, th')];
      document.getElementById('result').textContent = JSON.stringify({
        unfolded: folded.map((each, i) => height(each) - closed[i]),
        cut: boxes.filter(box => box.getBoundingClientRect().right > paper + 1 || box.scrollWidth > box.clientWidth + 1)
          .map(box => box.outerHTML.slice(0, 200)),
      });
    };"""
    for text in pages:
        frame = f'<iframe width="680" height="900" frameborder="0" srcdoc="{html.escape(text)}"></iframe>'
        found, _ = result_of(browser, tmp_path, frame, script)
        assert not found["cut"] and found["unfolded"] and min(found["unfolded"]) > 20


def test_it_prints(browser, tmp_path):
    (tmp_path / "page.html").write_text(one_run(tmp_path), encoding="utf-8")
    pdf = tmp_path / "page.pdf"
    started(browser, tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", f"file://{tmp_path / 'page.html'}")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 6
