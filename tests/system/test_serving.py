"""The container that Image Builder makes, run by the real podman: as root and rootless."""

import importlib.util
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from support.ordinary_user import ordinary_user
from web_image import REF, make_web_container

from rfe_helpers import serve
from rfe_helpers.commit.commit import open_commit
from rfe_helpers.errors import ServeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import solve

pytestmark = pytest.mark.slow
PACKAGES = (
    "rfe_helpers",
    "lazy_loader",
    "msgspec",
    "requests",
    "urllib3",
    "idna",
    "certifi",
    "charset_normalizer",
)
LIFE_OF_A_SITE = """\
import sys
from pathlib import Path

from rfe_helpers import serve
from rfe_helpers.lab.lab import Lab

lab = Lab(sys.argv[2])
site = serve.publish(lab, Path(sys.argv[1]), kickstarts={"edge.ks": "x"})
print(site.engine, site.answers, site.note)
lab.clean(serve.remove_container)
print(site.answers)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "lab")
    yield lab
    lab.clean(serve.remove_container)


def test_the_life_of_a_site(lab: Lab, tmp_path: Path) -> None:
    one = make_web_container(tmp_path / "one", "one")
    two = make_web_container(tmp_path / "two", "two")
    site = serve.publish(lab, one, kickstarts={"edge.ks": "first"}, engine="podman")
    assert requests.get(f"{site.url}edge.ks", timeout=5).text == "first"
    assert open_commit(site.repo_url, REF).info.subject == "one"
    assert open_commit(site.repo_url, REF).files()

    gaps = _gaps_while(site.url, lambda: serve.publish(lab, two, kickstarts={"edge.ks": "second"}))
    assert max(gaps) < 3
    assert serve.published(lab).port == site.port
    assert requests.get(f"{site.url}edge.ks", timeout=5).text == "second"
    assert open_commit(site.repo_url, REF).info.subject == "two"

    # Somebody removes the container behind our back.
    serve.remove_container(site.container)
    assert not serve.published(lab).answers
    assert serve.publish(lab, two, engine="podman").answers
    assert requests.get(f"{site.url}edge.ks", timeout=5).text == "second"
    assert serve.publish(lab, two, engine="podman", kickstarts={}).answers
    assert requests.get(f"{site.url}edge.ks", timeout=5).status_code == 404

    serve.stop(lab)
    assert not site.answers
    assert lab.state["containers"] == []


def test_going_back_before_the_installation_serves_the_first_commit(
    lab: Lab, tmp_path: Path
) -> None:
    one = make_web_container(tmp_path / "one", "one")
    lab.record("commit", artifact=one, commit="1" * 64)
    for step in ("serve", "install", "update", "trust", "interruptions"):
        lab.record(step, commit="2" * 64)
    update = make_web_container(tmp_path / "two", "two")
    site = serve.publish(lab, update, kickstarts={"edge.ks": "kept"})
    assert "served commit 111111111111 again" in solve.reset(lab, "50")
    assert open_commit(site.repo_url, REF).info.subject == "one"
    assert requests.get(f"{site.url}edge.ks", timeout=5).text == "kept"
    assert set(lab.state["steps"]) == {"commit", "serve"}
    assert solve.reset(lab, "50") == []


def test_a_sweep_removes_the_container(lab: Lab, tmp_path: Path) -> None:
    site = serve.publish(lab, make_web_container(tmp_path / "one", "one"), engine="podman")
    assert lab.sweep(serve.remove_container) == [f"container {site.container}"]
    assert not site.answers


def test_a_container_that_ends_at_once(lab: Lab, tmp_path: Path) -> None:
    directory = tmp_path / "one"
    make_web_container(directory, "one")
    (directory / "root" / "etc" / "nginx.conf").write_text("nonsense")
    from support.trees import make_container

    web = {"usr/share/nginx/html/repo": directory / "repo"}
    broken = make_container(tmp_path / "broken.tar", [{".": directory / "root"}, web])
    with pytest.raises(ServeError, match="unexpected end of file") as caught:
        serve.publish(lab, broken, engine="podman")
    assert caught.value.log == lab.log("podman")


def test_an_ordinary_user() -> None:
    """Without root and without a login session: rootless podman, or the host's nginx."""
    with ordinary_user() as user:
        directory = user.directory
        make_web_container(directory / "one", "one")
        script = directory / "try.py"
        script.write_text(LIFE_OF_A_SITE)
        # A new user can read neither root's Python nor its virtual environment: copies, then.
        for package in PACKAGES:
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            shutil.copytree(Path(spec.origin).parent, directory / "packages" / package)
        user.give(directory)
        words = ["/usr/bin/python3", script, directory / "one" / "container.tar", directory / "lab"]
        lines = user.run(words, packages=directory / "packages").stdout.splitlines()
    assert lines[0].startswith(("podman True", "nginx True podman cannot ")), lines
    assert lines[-1] == "False"


def _gaps_while(url: str, action: Callable[[], object]) -> list[float]:
    """How long the site did not answer, each time, while something happens to it."""
    gaps, last, done = [0.0], time.monotonic(), threading.Event()

    def read() -> None:
        nonlocal last
        while not done.is_set():
            try:
                good = requests.get(f"{url}repo/config", timeout=2).status_code == 200
            except requests.RequestException:
                good = False
            if good:
                gaps.append(time.monotonic() - last)
                last = time.monotonic()
            time.sleep(0.02)

    reader = threading.Thread(target=read)
    reader.start()
    action()
    done.set()
    reader.join()
    return gaps
