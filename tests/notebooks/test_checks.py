"""Every check of the short path can fail: what it is about is broken here, and it says so."""

import ast
from types import SimpleNamespace as Has

import nbformat
import pytest

from rfe_helpers.errors import CheckFailedError
from rfe_helpers.install import kickstart
from rfe_helpers.workbook import check
from rfe_helpers.workbook.chapters import number_of
from rfe_helpers.workbook.notebooks import all_notebooks

SHORT_PATH = ("00", "10", "20", "30", "40", "50", "60", "90")


def checks():
    """The number of the notebook and the condition of each check."""
    for path in all_notebooks():
        if number_of(path.name) in SHORT_PATH:
            for cell in nbformat.read(path, as_version=4).cells:
                if cell.cell_type == "code":
                    for node in ast.walk(ast.parse(cell.source)):
                        if isinstance(node, ast.Call) and ast.unparse(node.func) == "check":
                            yield number_of(path.name), ast.unparse(node.args[0])


def deployments(*checksums):
    return Has(
        deployments=[Has(checksum=each) for each in checksums], booted=Has(checksum=checksums[-1])
    )


def served(commit):
    return {
        "open_commit": lambda *_: Has(id=commit),
        "site": Has(repo_url="", answers=True),
        "built": {"ref": "edge", "commit": "new"},
        "update": Has(id="new"),
    }


def device(**files):
    return {"edge": Has(read=files.get, run=lambda _: Has(stdout="edge-1\n"))}


def packages(*names):
    return {"packages": "tmux jq", "names": set(names)}


def sized(by_directory):
    largest = max(by_directory, key=by_directory.get)
    return {"by_directory": by_directory, "total": 100.0, "largest": largest}


def remarks(*lines):
    text = "\n".join(["text", "rootpw --lock", *lines])
    return {"remarks": kickstart.validate(f"{text}\n", "RHEL9")}


def peaks(*numbers):
    return {"peaks": numbers}


def staged(all_on, some_off, phased):
    halves = (Has(most_staged=each, half_staged=each) for each in (all_on, some_off, phased))
    return dict(zip(("all_on", "some_off", "phased"), halves, strict=True))


def curve(last):
    splay = {"share": [0.0, last]}
    return {**splay, "without_splay": Has(curves={"staged": [0.0, 1.0]})}


UPDATE, OLD = Has(id="new"), {"old": "old"}
BUILT = {"built": {"commit": "new", "ref": "edge"}}
# By the condition of the check: names as they are if all is well, and if not.
CASES = {
    "not missing": ({"missing": []}, {"missing": ["qemu"]}),
    "status.api == '1'": ({"status": Has(api="1")}, {"status": Has(api="")}),
    "mode & 7 == 0": ({"mode": 0o600}, {"mode": 0o666}),
    "image_type in offered": (
        {"image_type": "edge-container", "offered": ("edge-container",)},
        {"image_type": "edge-container", "offered": ("qcow2",)},
    ),
    "names == set(packages.split())": (packages("tmux", "jq"), packages("tmux", "jq", "nano")),
    "set(packages.split()) <= names": (packages("tmux", "jq", "libc6"), packages("tmux", "libc6")),
    "stages": ({"stages": ["Stage: tree"]}, {"stages": []}),
    "commit.ref == release.ostree.ref": (
        {"commit": Has(ref="edge"), "release": Has(ostree=Has(ref="edge"))},
        {"commit": Has(ref="edge"), "release": Has(ostree=Has(ref="rhel/9/x86_64/edge"))},
    ),
    "commit.id == built['commit']": (
        {"commit": Has(id="new"), **BUILT},
        {"commit": Has(id="old"), **BUILT},
    ),
    "'/usr/etc' in paths and '/etc' not in paths": (
        {"paths": {"/usr/etc"}},
        {"paths": {"/usr/etc", "/etc"}},
    ),
    "not below_var": ({"below_var": []}, {"below_var": ["/var/lib/dpkg"]}),
    "abs(sum(by_directory.values()) - total) < 0.001 and by_directory[largest] > total / 4": (
        sized({"/usr/lib": 80.0, "/usr/bin": 20.0}),
        sized({"/usr/lib": 60.0, "/usr/bin": 20.0}),
    ),
    "other.compose['ostree-commit'] == other.id": (
        {"other": Has(compose={"ostree-commit": "new"}, id="new")},
        {"other": Has(compose={"ostree-commit": "old"}, id="new")},
    ),
    "difference.added or difference.changed": (
        {"difference": Has(added=("tmux",), changed=())},
        {"difference": Has(added=(), changed=())},
    ),
    "len(changed.modified) < 200": (
        {"changed": Has(modified=["/usr/lib/os-release"])},
        {"changed": Has(modified=["/usr/bin/x"] * 300)},
    ),
    "site.answers": ({"site": Has(answers=True)}, {"site": Has(answers=False)}),
    "answer.text.strip() == built['commit']": (
        {"answer": Has(text="new\n"), **BUILT},
        {"answer": Has(text="<html>404</html>"), **BUILT},
    ),
    "not remarks": (remarks("reboot"), remarks("user --name=core", "user --name=core")),
    "answer.text == text": (
        {"answer": Has(text="text\n"), "text": "text\n"},
        {"answer": Has(text="of before\n"), "text": "text\n"},
    ),
    "open_commit(site.repo_url, built['ref']).id == built['commit']": (
        served("new"),
        served("old"),
    ),
    "open_commit(site.repo_url, built['ref']).id == update.id": (served("new"), served("old")),
    "disk.stat().st_size > 100000000.0": (
        {"disk": Has(stat=lambda: Has(st_size=900_000_000))},
        {"disk": Has(stat=lambda: Has(st_size=200_000))},
    ),
    "booted.checksum == built['commit']": (
        {"booted": Has(checksum="new"), **BUILT},
        {"booted": Has(checksum="old"), **BUILT},
    ),
    "len(status.deployments) == 1": (
        {"status": deployments("new")},
        {"status": deployments("new", "old")},
    ),
    "edge.run('hostname').stdout.strip() == served['hostname']": (
        {**device(), "served": {"hostname": "edge-1"}},
        {**device(), "served": {"hostname": "till-1"}},
    ),
    "not writable['/usr']": ({"writable": {"/usr": False}}, {"writable": {"/usr": True}}),
    "writable['/etc'] and writable['/var']": (
        {"writable": {"/etc": True, "/var": True}},
        {"writable": {"/etc": True, "/var": False}},
    ),
    "has(extra_package)": (
        {"has": lambda _: True, "extra_package": "jq"},
        {"has": lambda _: False, "extra_package": "jq"},
    ),
    "not has(extra_package)": (
        {"has": lambda _: False, "extra_package": "jq"},
        {"has": lambda _: True, "extra_package": "jq"},
    ),
    "update.info.parent == parent.id": (
        {"update": Has(info=Has(parent="old")), "parent": Has(id="old")},
        {"update": Has(info=Has(parent=None)), "parent": Has(id="old")},
    ),
    "update.id != old": ({"update": UPDATE, **OLD}, {"update": Has(id="old"), **OLD}),
    "staged.deployments[0].checksum == update.id": (
        {"staged": deployments("new", "old"), "update": UPDATE},
        {"staged": deployments("old"), "update": UPDATE},
    ),
    "staged.booted.checksum == old": (
        {"staged": deployments("new", "old"), **OLD},
        {"staged": deployments("old", "new"), **OLD},
    ),
    "after.booted.checksum == update.id": (
        {"after": deployments("old", "new"), "update": UPDATE},
        {"after": deployments("new", "old"), "update": UPDATE},
    ),
    "len(after.deployments) >= 2": (
        {"after": deployments("new", "old")},
        {"after": deployments("new")},
    ),
    "contents_now == contents": (
        {"contents_now": {"/etc/x": "1"}, "contents": {"/etc/x": "1"}},
        {"contents_now": {"/etc/x": ""}, "contents": {"/etc/x": "1"}},
    ),
    "back.booted.checksum == old": (
        {"back": deployments("new", "old"), **OLD},
        {"back": deployments("old", "new"), **OLD},
    ),
    "any((d.checksum == update.id for d in back.deployments))": (
        {"back": deployments("new", "old"), "update": UPDATE},
        {"back": deployments("old"), "update": UPDATE},
    ),
    "edge.read('/etc/where-i-am').strip() == 'shop 17'": (
        device(**{"/etc/where-i-am": "shop 17\n"}),
        device(**{"/etc/where-i-am": "shop 18\n"}),
    ),
    "edge.read('/var/lib/measurement-2')": (
        device(**{"/var/lib/measurement-2": "42.3"}),
        device(**{"/var/lib/measurement-2": ""}),
    ),
    "cost.requests > cost.check_requests": (
        {"cost": Has(requests=90, check_requests=2)},
        {"cost": Has(requests=2, check_requests=2)},
    ),
    "ratio > 2": ({"ratio": 90.0}, {"ratio": 1.9}),
    "ratio > 1": ({"ratio": 1.1}, {"ratio": 1.0}),
    "share[-1] >= without_splay.curves['staged'][-1] - 1e-06": (curve(1.0), curve(0.9)),
    "peaks[-1] < peaks[0]": (peaks(9, 5, 2), peaks(2, 5, 9)),
    "some_off.most_staged >= all_on.most_staged": (staged(1, 2, 3), staged(3, 2, 1)),
    "phased.half_staged >= all_on.half_staged": (staged(1, 2, 3), staged(3, 2, 1)),
    "span(splay) >= 0.95 * least": (
        {"span": len, "splay": "1h", "least": 2},
        {"span": len, "splay": "1h", "least": 3},
    ),
    "with_splay.failed_pulls < 1": (
        {"with_splay": Has(failed_pulls=0.0)},
        {"with_splay": Has(failed_pulls=12.0)},
    ),
    "with_splay.missed < 0.001": (
        {"with_splay": Has(missed=0.0)},
        {"with_splay": Has(missed=0.2)},
    ),
}


def test_every_check_of_the_short_path_is_tried():
    assert {condition for _, condition in checks()} == set(CASES)


@pytest.mark.parametrize("condition", CASES)
def test_a_check_passes_if_all_is_well_and_fails_if_not(condition, capsys):
    well, broken = CASES[condition]
    check(eval(condition, dict(well)), "what the prose promised")
    assert "✔ what the prose promised" in capsys.readouterr().out
    with pytest.raises(CheckFailedError, match="what the prose promised"):
        check(eval(condition, dict(broken)), "what the prose promised")
