"""The Markdown pages name files, headings, annotations and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autotuner import keys
from autotuner.controller.settings import settings
from autotuner.spec.schema import annotation_table

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (".", "autotuner", "deploy", "helm", "tests")
    for page in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def read(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "deploy/OPERATING.md"} <= {str(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_existing_files_and_headings(page: Path):
    broken = []
    for link in LINK.findall(FENCED.sub("", read(page))):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        is_broken = not target.exists() or (anchor and anchor not in anchors(target.relative_to(ROOT)))
        broken += [link] if is_broken else []
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_annotations_in_the_pages_are_read(page: Path):
    known = {row["key"] for row in annotation_table()}
    named = set(re.findall(rf"(?<![\w.]){re.escape(keys.PREFIX)}[a-z][a-z-]*[a-z]", read(page)))
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_settings_in_the_pages_exist(page: Path):
    known = {setting.name for setting in settings()}
    assert set(re.findall(r"`config\.(\w+)", read(page))) - known == set()
