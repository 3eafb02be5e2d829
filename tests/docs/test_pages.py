"""What the pages point at is there: pages, anchors, gin files; and every page is in the site."""

import re
from pathlib import Path

import pytest
import yaml
from pages import PAGES, ROOT, anchors, without_code

from cptjax.models.families.registry import FAMILIES
from cptjax.scaling.registry import LAWS

IDS = [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {there.name} has no heading #{anchor}"
        if page.parent.name == "docs":
            assert there.is_relative_to(page.parent), f"{page.name}: {target} is not part of the site"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_gin_files_and_notebooks_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"(?<![\w/.<>])(?:gin|colab)/[\w./-]+\.(?:gin|ipynb)\b", text)):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"


def test_every_page_is_in_the_site():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def leaves(part):
        if isinstance(part, str):
            return [part]
        return [leaf for each in (part.values() if isinstance(part, dict) else part) for leaf in leaves(each)]

    there = {page.name for page in PAGES if page.parent.name == "docs"}
    assert sorted(leaves(nav)) == sorted(there), "mkdocs.yml's nav and docs/*.md differ"


def test_the_front_page_counts_what_there_is():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{len(FAMILIES)} families of text decoders" in text
    assert len(LAWS) == 18 and "eighteen laws" in text
    for number in ("2407.07263", "2407.02118", "2603.19149", "2501.02068", "2308.12284"):
        assert f"arxiv.org/abs/{number}" in text


def test_the_citation_is_of_this_version():
    import cptjax

    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["version"] == cptjax.__version__ and found["license"] == "Apache-2.0"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    page = (tmp_path / "extending" / "index.html").read_text(encoding="utf-8")
    assert "A selection policy" in page and Path(tmp_path / "search").is_dir()
