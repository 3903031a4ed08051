"""NoCloud data as cloud-init and a CD reader see them."""

import subprocess
from pathlib import Path

import pytest

from rfe_helpers.errors import InputError
from rfe_helpers.install import kickstart, media
from rfe_helpers.machine import cloudinit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE somebody@somewhere"


def documents() -> dict[str, str]:
    return {
        "user-data": cloudinit.user_data(password_hash=kickstart.hash_password("r"), ssh_key=KEY),
        "meta-data": cloudinit.meta_data("rfe-1", "builder"),
    }


def test_cloud_init_itself_takes_the_user_data(tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_text(documents()["user-data"])
    command = ["cloud-init", "schema", "--config-file", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Valid" in ran.stdout
    assert "deprecat" not in ran.stdout.lower()


def test_cloud_init_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """The counterpart of the test above."""
    path = tmp_path / "user-data"
    path.write_text(documents()["user-data"].replace("true", '"perhaps"').replace("users", "user"))
    command = ["cloud-init", "schema", "--config-file", str(path)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode != 0


def test_the_cd_has_the_label_and_the_files(tmp_path: Path) -> None:
    seed = cloudinit.seed(tmp_path / "deep" / "seed.iso", documents())
    assert seed.stat().st_mode & 0o777 == 0o600
    cd = media.read(seed)
    assert cd.label == "cidata"
    for name, text in documents().items():
        copied = cd.extract(name, tmp_path / name).read_text()
        assert len(copied) == len(text)  # but for the salt
        assert copied.startswith(text[:40])


@pytest.mark.parametrize("value", ["", "two\nlines"])
def test_values_are_single_lines(value: str) -> None:
    with pytest.raises(InputError, match="one line"):
        cloudinit.user_data(password_hash=value, ssh_key=KEY)
    with pytest.raises(InputError, match="one line"):
        cloudinit.user_data(password_hash="$6$x", ssh_key=value)


def test_a_directory_of_ones_own_is_read_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no user-data and no meta-data"):
        cloudinit.read_directory(tmp_path)
    (tmp_path / "user-data").write_text("#!/bin/sh\ntrue\n")
    (tmp_path / "meta-data").write_text("")
    (tmp_path / "other").write_text("x")
    assert cloudinit.read_directory(tmp_path) == {
        "user-data": "#!/bin/sh\ntrue\n",
        "meta-data": "",
    }
    (tmp_path / "vendor-data").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a text file"):
        cloudinit.read_directory(tmp_path)
