"""Debian's Chromium, driven by playwright."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from rfe_helpers.core import run

ARGUMENTS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars=false"),
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. Root cannot have Chromium's own sandbox."""
    program = next(filter(None, map(run.which, ("chromium", "chromium-browser", "google-chrome"))))
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()
