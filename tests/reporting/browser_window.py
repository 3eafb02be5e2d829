"""Pages as a browser shows them, on a phone and on a desk.

A page stands in an iframe of just that width (a window of headless Chromium cannot be as narrow as a phone), and a script in
the page around it measures what came out.
"""

import html
import json
import re
import subprocess

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --window-size=1400,1000""".split()
WIDTHS = (390, 768, 1280)
SMALLEST_TEXT = 9  # px on the screen
MEASURE = """
function measure(frame) {
  const view = frame.contentWindow, page = frame.contentDocument, width = view.innerWidth;
  const inside = element => element.closest('.scroll, pre, svg');
  const charts = [...page.querySelectorAll('svg.chart')];
  const found = {width: width, scroll: page.documentElement.scrollWidth, wide: [], flat: [], small: [], cut: [], overlapping: []};
  for (const element of page.body.querySelectorAll('*'))
    if (!inside(element) && element.getBoundingClientRect().right > width + 1) found.wide.push(element.outerHTML.slice(0, 200));
  for (const box of page.querySelectorAll('.scroll, pre'))
    if (box.getBoundingClientRect().right > width + 1) found.wide.push(box.outerHTML.slice(0, 200));
  for (const svg of page.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect();
    if (!(frame.width > 10 && frame.height > 5)) found.flat.push(svg.outerHTML.slice(0, 200));
  }
  for (const svg of charts) {
    const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect(), text]);
    for (const [text, box, element] of texts) {
      if (parseFloat(view.getComputedStyle(element).fontSize) * scale < SMALLEST) found.small.push(text);
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        found.cut.push(text);
    }
    texts.forEach(([a, one], i) => texts.slice(i + 1).forEach(([b, other]) => {
      const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
      if (across > 1 && down > 4) found.overlapping.push(a + ' | ' + b);  // boxes of lines are higher than their letters
    }));
  }
  found.charts = charts.length;
  return found;
}
window.onload = () => {
  document.getElementById('result').textContent = JSON.stringify([...document.querySelectorAll('iframe')].map(measure));
};
"""


def started(browser, folder, *arguments) -> subprocess.CompletedProcess:
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def result_of(browser, folder, frames: str, script: str):
    """What the script wrote into the element `result` of a page around `frames`, and the console's messages."""
    around = f'<!DOCTYPE html><meta charset="utf-8"><pre id="result"></pre>{frames}<script>{script}</script>'
    path = folder / "around.html"
    path.write_text(around, encoding="utf-8")
    done = started(
        browser, folder, "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", f"file://{path}"
    )
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert result and result[1], done.stderr[-3000:]
    return json.loads(html.unescape(result[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def shown(browser, folder, text: str) -> tuple[list[dict], list[str]]:
    """What was measured at each width, and the console's messages."""
    frame = '<iframe width="{}" height="900" frameborder="0" srcdoc="{}"></iframe>'
    frames = "".join(frame.format(width, html.escape(text)) for width in WIDTHS)
    return result_of(browser, folder, frames, MEASURE.replace("SMALLEST", str(SMALLEST_TEXT)))
