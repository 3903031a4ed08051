"""Drawings say the state of a run, to eyes and to screen readers."""

import re
from dataclasses import dataclass
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from rfe_helpers.serve.site import Site
from rfe_helpers.workbook import connections, deployments, tree


@dataclass
class Deployment:
    checksum: str
    version: str
    booted: bool = False
    staged: bool = False


OLD, NEW = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("entries", "lines"),
    [
        (
            [Deployment(OLD, "1", booted=True)],
            ["1  aaaaaaaaaaaa  ● booted; boot menu: first entry, the default; /etc: in use"],
        ),
        (
            [Deployment(NEW, "2", staged=True), Deployment(OLD, "1", booted=True)],
            [
                "2  bbbbbbbbbbbb  staged: boots next; boot menu: written at shutdown; "
                "/etc: merged at shutdown",
                "1  aaaaaaaaaaaa  ● booted; boot menu: entry 2; /etc: in use",
            ],
        ),
        (
            [Deployment(NEW, "2", booted=True), Deployment(OLD, "1")],
            [
                "2  bbbbbbbbbbbb  ● booted; boot menu: first entry, the default; /etc: in use",
                "1  aaaaaaaaaaaa  kept for rollback; boot menu: entry 2; /etc: as it was left",
            ],
        ),
        (
            [Deployment(OLD, "1"), Deployment(NEW, "2", booted=True)],
            [
                "1  aaaaaaaaaaaa  boots next; boot menu: first entry, the default; "
                "/etc: as it was left",
                "2  bbbbbbbbbbbb  ● booted; boot menu: entry 2; /etc: in use",
            ],
        ),
    ],
)
def test_deployments_say_what_boots_and_whose_etc_it_is(entries, lines):
    drawing = deployments(entries)
    assert repr(drawing).splitlines() == [*lines, "/var is one for all of them"]
    assert words(drawing).count("/etc of its own") == len(entries)


def words(drawing) -> list[str]:
    """The lines of text in an SVG, which has to be well-formed."""
    svg = ElementTree.fromstring(drawing.html)
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == drawing.text.replace("\n", " ")
    return [each.text for each in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_a_version_cannot_be_markup():
    drawing = deployments([Deployment(OLD, '<script>"', booted=True)])
    assert '<script>"' in words(drawing)


@pytest.mark.parametrize("engine", ["podman", "nginx"])
def test_connections_name_the_addresses_of_both_sides(engine):
    site = Site(
        "http://127.0.0.1:8123/",
        "http://10.0.2.2:8123/",
        8123,
        engine,
        "x.tar",
        ("edge.ks",),
        container="rfe-mirror-1",
    )
    drawing = connections(site, inside=8080, machine="edge-1")
    shown = " ".join(words(drawing))
    for word in ("edge-1", "10.0.2.15", "http://10.0.2.2:8123", "127.0.0.1:8123", "/edge.ks"):
        assert word in shown
        assert word in drawing.text
    assert ("port 8080 in the container" in shown) == (engine == "podman")


def commit(files, packages=()):
    entries = [
        SimpleNamespace(path=path, size=size, checksum=checksum, kind="file")
        for path, size, checksum in files
    ]
    return SimpleNamespace(
        files=lambda: entries, knows_owners=bool(packages), size_by_package=lambda: dict(packages)
    )


def test_a_tree_says_what_an_update_shares_with_its_parent():
    old = commit([("/usr/bin/a", 3_000_000, "1"), ("/usr/lib/b", 1_000_000, "2")])
    new = commit(
        [("/usr/bin/a", 3_000_000, "1"), ("/usr/lib/b", 2_000_000, "3"), ("/boot/<k>", 10, "4")],
        {"tmux": 5_000_010},
    )
    drawing = tree(new, old)
    assert drawing.text.startswith("5.0 MB in files: /usr 5.0 MB, /boot 10 B")
    assert drawing.text.endswith("3.0 MB are shared with the parent, 2.0 MB are new")
    assert re.search(r"bin <b>3.0 MB</b>, 0 B new", drawing.html)
    assert re.search(r"lib <b>2.0 MB</b>, 2.0 MB new", drawing.html)
    assert "&lt;k&gt;" in drawing.html
    assert "tmux <b>5.0 MB</b>" in drawing.html
    assert ElementTree.fromstring(drawing.html).findall(".//details")
    assert "shared" not in tree(new).text


def test_what_is_small_is_summed_up():
    drawing = tree(commit([(f"/usr/{n}", n, str(n)) for n in range(1, 21)]), most=4)
    assert "16 others <b>136 B</b>" in drawing.html
