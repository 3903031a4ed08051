"""`rfe media`."""

import json
import subprocess
from pathlib import Path

import pytest

from rfe_helpers.cli import main


def test_media_are_shown_and_sticks_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rfe(*arguments: str | Path) -> tuple[int, str, str]:
        status = main.main(["media", *map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out, said.err

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "x").write_text("x")
    iso, stick = tmp_path / "x.iso", tmp_path / "stick"
    making = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "LABEL", "-o", iso, tmp_path / "tree"]
    subprocess.run(making, check=True)
    shown = json.loads(rfe("show", "--json", iso)[1])
    assert (shown["label"], shown["checksum"], shown["commit"]) == ("LABEL", "none inside", None)
    assert "label:     LABEL\n" in rfe("show", iso)[1]
    assert "it has no checksum" in rfe("verify", iso)[1]
    stick.write_bytes(iso.read_bytes())
    assert f"has all {iso.stat().st_size} bytes" in rfe("verify", iso, stick)[1]
    stick.write_bytes(iso.read_bytes()[:-1])
    status, _, said = rfe("verify", iso, stick)
    assert status == 1
    assert "it was cut off" in said
