"""Whatever the texts of a blueprint are, they reach the image as they are, and as nothing else."""

import fnmatch
import re
import shlex
import subprocess
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.containerfiles import (
    RHEL,
    SANDBOX,
    SYSUSERS,
    TMPFILES,
    TRANSLATED,
    instructions,
    runs,
)

from rfe_helpers.build import blueprint as blueprints
from rfe_helpers.build.keys import CUSTOMIZATIONS
from rfe_helpers.imagemode import Translation, translate
from rfe_helpers.imagemode.context import quoted
from rfe_helpers.lab import profile

NASTY = ["\n", "\nRUN x\n", "$x", "`x`", "\\", '"', "'", "%", "#", "EOF", "a b", "[x]", "ü", "-"]
WORDS = st.text(max_size=12) | st.lists(st.sampled_from([*NASTY, "a", "1"]), max_size=4).map(
    "".join
)


def shaped(shape: Any) -> st.SearchStrategy[Any]:
    """Values of the shape of a part of a blueprint (blueprint.CUSTOMIZATIONS)."""
    if shape is str:
        return WORDS | st.sampled_from(["core", "0644", "/etc/a", "/root/b", "de_DE.UTF-8"])
    if shape is int:
        return st.integers(-2, 2**33)
    if shape is bool:
        return st.booleans()
    if isinstance(shape, tuple):
        return st.one_of(*map(shaped, shape))
    if isinstance(shape, list):
        return st.lists(shaped(shape[0]), max_size=3)
    if isinstance(shape, dict):
        return st.fixed_dictionaries({}, optional={key: shaped(v) for key, v in shape.items()})
    return st.none()


PATHS = st.builds("{}/{}".format, st.sampled_from(["/etc", "/var/x", "/usr/lib"]), WORDS)
FILES = {**CUSTOMIZATIONS["files"][0], "path": str}
CUSTOM = st.fixed_dictionaries(
    {
        "files": st.lists(
            st.fixed_dictionaries(
                {"path": PATHS, "data": WORDS}, optional={"user": WORDS, "mode": WORDS}
            ),
            max_size=4,
        )
    },
    optional={name: shaped(CUSTOMIZATIONS[name]) for name in sorted(TRANSLATED - {"files"})},
)


@settings(max_examples=150, deadline=None)
@given(
    CUSTOM,
    st.lists(st.fixed_dictionaries({"name": WORDS, "version": WORDS}), max_size=3),
    WORDS,
    st.sampled_from([SANDBOX, RHEL]),
)
def test_no_text_of_a_blueprint_becomes_an_instruction(
    customizations: Any, packages: Any, words: str, release: profile.Profile
) -> None:
    parts = {"name": words, "description": words, "packages": packages}
    data = {**parts, "customizations": customizations}
    blueprint, _ = blueprints.read(data)
    translation = translate(blueprint, release)
    assert re.fullmatch(r"[\n -~]*", translation.containerfile)
    pairs = instructions(translation)
    assert {name for name, _ in pairs} <= {"FROM", "LABEL", "COPY", "RUN"}
    assert [text for name, text in pairs if name != "RUN"][:2] == [
        release.image_mode.base,
        "containers.bootc=1",
    ]
    assert sum(name == "COPY" for name, _ in pairs) == bool(translation.files)
    for text in runs(translation):
        allowed = ("dnf ", "apt-get ", "systemctl ", "firewall-offline-cmd ", "install ", "ln ")
        assert text.startswith((*allowed, "printf ", "update-ca-trust", "bootc container lint"))
    script = "\n".join(runs(translation))
    checked = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    _check_files(translation)


def _check_files(translation: Translation) -> None:
    """Each file is a place of its own below rootfs, and lines of systemd's files have their
    fields."""
    paths = [file.path for file in translation.files]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.startswith("rootfs/")
        assert ".." not in path.split("/")
        assert not any(other.startswith(f"{path}/") for other in paths)
    for file in translation.files:
        if file.path == TMPFILES:
            for line in file.text.splitlines():
                kind, path, mode, user, group, age = shlex.split(line)
                assert kind in ("C", "d", "z")
                assert path.startswith(("/etc/", "/var/"))
                assert re.fullmatch(r"0[0-7]{3}", mode)
                assert (age, bool(user), bool(group)) == ("-", True, True)
        elif file.path == SYSUSERS:
            for line in file.text.splitlines():
                assert len(shlex.split(line)) == {"g": 3, "u": 6, "m": 3}[line[0]]
                assert line.isprintable()


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20))
def test_a_pattern_of_tmpfiles_matches_its_own_path_alone(name: str) -> None:
    """glob(7) without braces, whose escape is the same."""
    (word,) = shlex.split(quoted(f"/etc/{name}"))
    assert word.replace("%%", "%") == f"/etc/{name}"
    (word,) = shlex.split(quoted(f"/etc/{name}", pattern=True))
    plain = re.sub(r"\\([*?\[\]{}\\])", lambda m: f"[{m[1]}]", word.replace("%%", "%"))
    assert fnmatch.fnmatchcase(f"/etc/{name}", plain.replace("[]]", "]").replace("[\\]", "[\\\\]"))
