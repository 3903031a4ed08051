"""The site that `make docs` builds: it needs no other host, fits a phone, and can be read by
everybody, as far as axe can tell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from support.browser import barriers
from support.jupyterlab import ARTEFACTS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PHONE = {"width": 375, "height": 812}
DESK = {"width": 1280, "height": 900}
NAMES = "[...document.querySelectorAll('[id]')].map(element => element.id).concat('')"
LINKS = "[...document.links].map(link => link.href).filter(link => link.startsWith('file:'))"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    command = [BIN / "sphinx-build", "-q", "-W", "--keep-going", "-c", "docs/sphinx"]
    command += ["-d", directory / "doctrees", ROOT, directory / "site"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return directory / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with chromium.new_context(viewport=DESK) as context:
        yield context.new_page()


def test_pages_are_whole_lead_somewhere_and_can_be_read_by_everybody(
    site: Path, pages: list[Path], page: Page
) -> None:
    requests, complaints, remarks, wide = [], [], [], []
    targets, links = {path.as_uri() for path in site.rglob("*") if path.is_file()}, set()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for path in pages:
        page.set_viewport_size(DESK)
        page.goto(path.as_uri())
        page.emulate_media(color_scheme="light")
        remarks += [f"{path.name}: {each}" for each in barriers(page)]
        page.emulate_media(color_scheme="dark")
        remarks += [f"{path.name}: {each}" for each in barriers(page, rule="color-contrast")]
        targets |= {f"{path.as_uri()}#{name}" for name in page.evaluate(NAMES)}
        links |= {(path.name, link) for link in page.evaluate(LINKS)}
        page.set_viewport_size(PHONE)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path.name)
    assert {link for link in links if link[1] not in targets} == set()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    assert remarks == []
    assert wide == []


def test_the_search_finds_a_page(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri())
    page.get_by_placeholder("Search").fill("splay")
    page.get_by_placeholder("Search").press("Enter")
    page.get_by_role("link", name="Plan for a million").first.wait_for()
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "site-search.png")
