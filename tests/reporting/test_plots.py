"""Charts: the same data give the same bytes, nothing in them points outside, and they are told apart without colour."""

import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.reporting.estimate_plots import Bar, bars, points
from cptjax.reporting.palette import BASE, style, styles
from cptjax.reporting.plots import Series, Span, _binned, lines, shares, trace

NAN, INF = math.nan, math.inf
STRANGE = "a$b$_^{} <script>alert('x')</script> & \"quoted\" 中文 \x00\n ‮" + "long " * 30


def attributes(svg: str) -> list[tuple[str, str]]:
    return [item for element in ElementTree.fromstring(svg).iter() for item in element.attrib.items()]


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag == "text"]


def every_kind(label: str, values=(4.0, 3.0, 2.5)) -> list:
    """One chart of each kind, with `label` wherever a label may stand."""
    series = [Series(label, [0, 1e5, 2e5], values, style(0)), Series("other", [0, 2e5], [3.0, 3.1], style(1))]
    spans = [Span(label, 0, 1e5, {label: 1.0}), Span("second", 1e5, 2e5, {label: 0.25, "other": 0.75})]
    estimates = [Bar(label, values[0], style(0), values[0] - 1, values[0] + 1), Bar("other", 1.0, style(1))]
    return [
        lines("a", label, series, "tokens", switches=[1e5]),
        trace("b", label, series[0], "tokens", switches=[1e5]),
        shares("c", label, spans, styles([label, "other"]), "tokens", read=1.5e5),
        points("d", label, [(each, each) for each in estimates], "x", "y", origin=Bar("base", 0.0, BASE)),
        bars("e", label, estimates, "nats"),
    ]


def test_the_same_data_give_the_same_bytes_in_another_process():
    program = "from test_plots import every_kind; print(*(c.svg + ''.join(k.sample for k in c.keys) for c in every_kind('a')))"
    again = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=os.path.dirname(__file__),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert again[0] == again[1] and again[0].count("<svg") == 5 + 2 + 2 + 3


@pytest.mark.parametrize("kind", range(5))
def test_nothing_in_a_chart_points_outside_and_every_id_is_its_own(kind):
    chart = every_kind("label")[kind]
    found = [chart.svg, *(key.sample for key in chart.keys)]
    assert "http" not in "".join(found) and "<!--" not in "".join(found) and "<style" not in "".join(found)
    ids = [value for svg in found for key, value in attributes(svg) if key == "id"]
    assert len(set(ids)) == len(ids) and all(each.startswith("abcde"[kind] + "-") for each in ids)
    for svg in found:
        own = {value for key, value in attributes(svg) if key == "id"}
        references = {m for key, value in attributes(svg) for m in re.findall(r"url\(#([^)]+)\)", value)}
        references |= {value.removeprefix("#") for key, value in attributes(svg) if key == "href"}
        assert references == own  # nothing dangles, and no id is there for nothing


@pytest.mark.parametrize("kind", range(5))
def test_labels_of_any_characters_stay_text(kind):
    chart = every_kind(STRANGE)[kind]
    root = ElementTree.fromstring(chart.svg)  # well-formed
    assert not [element for element in root.iter() if element.tag == "script"]
    assert "$b$_^{} <script>" in root.get("aria-label")
    assert all(len(text) <= 45 for text in texts(chart.svg))


def test_a_dollar_is_a_dollar_and_a_leading_underscore_is_drawn():
    chart = bars("a", "t", [Bar("_a$x^2$", 1.0, style(0))], "nats")
    assert "_a$x^2$" in texts(chart.svg)


@pytest.mark.parametrize(
    "values", [(NAN, 3.0, 2.0), (NAN, NAN, NAN), (INF, -INF, 1.0), (0.0, 0.0, 0.0), (1e30, 1e-30, 1.0)]
)
def test_values_that_are_not_finite_are_left_out_and_counted(values):
    charts = every_kind("label", values)
    gaps = sum(not math.isfinite(value) for value in values)
    for chart in charts[:2]:
        assert (f"left out: {gaps} of the values" in chart.note) == bool(gaps)
    assert all("nan" not in value for chart in charts for key, value in attributes(chart.svg) if key == "d")
    if not math.isfinite(values[0]):
        assert "left out: label" in charts[3].note and "other" not in charts[3].note
        assert any("not finite" in text for text in texts(charts[4].svg))


def test_one_point_and_none_can_be_drawn():
    one = trace("a", "loss", Series("loss", [1024], [4.0], style(0)), "tokens")
    none = lines("b", "loss", [Series("loss", [], [], style(0))], "tokens")
    assert "4" in one.svg and "nothing finite" in none.svg


def test_text_is_no_smaller_than_nine_points_and_has_no_font_of_its_own():
    for chart in every_kind("label"):
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", chart.svg)]
        assert sizes and min(sizes) >= 9 and "font-family" not in chart.svg and "DejaVu" not in chart.svg


def test_what_a_chart_shows_is_said_in_words():
    said = ElementTree.fromstring(every_kind("label")[0].svg).get("aria-label")
    assert "label: 4 to 2.5" in said and "other: 3 to 3.1" in said
    said = ElementTree.fromstring(every_kind("label")[2].svg).get("aria-label")
    assert "second, 100k to 200k: label 25%, other 75%" in said


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from([NAN, INF])), min_size=1, max_size=450))
def test_a_trace_covers_every_finite_value_in_at_most_100_stretches(values):
    x, y = np.arange(1.0, len(values) + 1), np.array(values)
    at, mean, low, high = _binned(x, y)
    finite = y[np.isfinite(y)]
    assert len(at) <= 100 and at[-1] == len(values) and (np.diff(at) > 0).all()
    if len(finite):
        assert np.nanmin(low) == finite.min() and np.nanmax(high) == finite.max()
    kept = np.isfinite(mean)
    assert (low[kept] <= mean[kept] + 1e-6).all() and (mean[kept] <= high[kept] + 1e-6).all()


def test_a_long_trace_stays_small_and_says_what_is_drawn():
    steps = np.arange(1, 50_001)
    chart = trace("a", "loss", Series("loss", steps, 3 + np.sin(steps), style(0)), "tokens")
    assert len(chart.svg) < 30_000 and "mean of 500 steps" in chart.note


def test_a_wide_range_is_logarithmic_and_says_so():
    chart = trace("a", "norm", Series("norm", [1, 2, 3], [0.1, 1.0, 10.0], style(0)), "tokens")
    assert "logarithmic" in chart.note and "0.5" in texts(chart.svg)
    assert "logarithmic" not in trace("a", "norm", Series("norm", [1, 2], [1.0, 2.0], style(0)), "tokens").note


def test_the_axis_of_a_few_steps_counts_them_once():
    drawn = texts(trace("a", "loss", Series("loss", [1, 2, 3], [3.0, 2.0, 1.0], style(0)), "steps").svg)
    assert drawn[: drawn.index("steps")] == ["0", "1", "2", "3"]


def test_styles_differ_without_their_colours():
    """The first five are told apart by dash, the first seven by marker and by hatch; 210 by all of it."""
    first = [style(i) for i in range(210)]
    assert len({each.dash for each in first[:5]}) == 5
    assert len({each.marker for each in first[:7]}) == len({each.hatch for each in first[:7]}) == 7
    assert len({(each.color, each.dash, each.marker) for each in first}) == 210


def test_colours_can_be_told_apart_by_those_who_see_two_cones():
    """Machado et al. 2009, severity 1: every pair of the six stays well apart in linear RGB under each deficiency."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }
    colors = [np.array([int(style(i).color[k : k + 2], 16) / 255 for k in (1, 3, 5)]) for i in range(6)]
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in colors]
    for matrix in matrices.values():
        seen = [np.clip(np.array(matrix) @ c, 0, 1) ** (1 / 2.4) for c in linear]
        distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(distances) > 0.1


def test_drawing_changes_no_setting_of_the_caller_and_imports_no_pyplot():
    program = (
        "import sys, matplotlib\n"
        "matplotlib.rcParams['font.size'] = 33\n"
        "from cptjax.reporting.palette import style\n"
        "from cptjax.reporting.plots import Series, lines\n"
        "svg = lines('a', 't', [Series('s', [0, 1], [1, 2], style(0))], 'x').svg\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams['font.size'], 'font-size: 9px' in svg)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "33.0", "True"] and not done.stderr
