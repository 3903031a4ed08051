"""Debian's Chromium, driven by playwright."""

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from rfe_helpers.core import run

ARGUMENTS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars=false"),
)


@contextmanager
def chromium(*certificates: Path) -> Iterator[Browser]:
    """A browser without a window, which trusts the servers of these certificates (PEM). With
    Playwright's `ignore_https_errors` it begins requests again instead, and may give up
    (ERR_TOO_MANY_RETRIES). Root cannot have Chromium's own sandbox."""
    program = next(filter(None, map(run.which, ("chromium", "chromium-browser", "google-chrome"))))
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    keys = ",".join(_fingerprint(certificate) for certificate in certificates)
    arguments += [f"--ignore-certificate-errors-spki-list={keys}"] if keys else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


def _fingerprint(certificate: Path) -> str:
    """The SHA-256 of its public key, in base64."""
    pem = run.run(["openssl", "x509", "-in", certificate, "-noout", "-pubkey"]).stdout
    key = base64.b64decode("".join(pem.splitlines()[1:-1]))
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def barriers(page: Page, rule: str = "", within: Sequence[str] = ()) -> list[str]:
    """What axe-core finds serious or critical on a page: a rule, and the beginning of the first
    elements that break it. `rule` is the only one to try, "" for all; `within` are selectors of the
    parts to look at, none for the whole page."""
    context = {"include": [[selector] for selector in within]} if within else None
    options = {"resultTypes": ["violations"], "preload": False}
    options |= {"runOnly": [rule]} if rule else {}
    violations = Axe().run(page, context=context, options=options).response["violations"]
    return [
        f"{each['id']}: " + "; ".join(node["html"][:150] for node in each["nodes"][:3])
        for each in violations
        if each["impact"] in ("serious", "critical")
    ]
