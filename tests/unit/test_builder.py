"""With the real sandbox service, which needs neither network nor root just to answer."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfe_helpers import builder, run
from rfe_helpers.errors import BuilderError, InputError, MediaError
from rfe_helpers.lab import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    lab = Lab(tmp_path / "lab")
    yield lab
    lab.sweep()


def test_the_service_is_started_once_and_found_again(lab: Lab) -> None:
    said: list[str] = []
    client = builder.get(lab, on_progress=said.append)
    assert said == ["starting Image Builder"]
    process = lab.process("image-builder")
    assert process is not None
    assert {"edge-commit", "edge-container", "edge-installer"} <= set(client.types())

    again = builder.get(Lab(lab.directory), on_progress=said.append)
    assert said == ["starting Image Builder"]
    assert again.status() == client.status()
    assert lab.process("image-builder") == process

    shown = builder.status(lab)
    assert (shown.pid, shown.running, shown.waiting) == (process.pid, 0, 0)
    assert str(process.pid) in str(shown)

    assert builder.stop(lab)
    assert not process.alive
    assert builder.status(lab).pid is None
    assert "not running" in str(builder.status(lab))
    assert not builder.stop(lab)


def test_a_killed_service_is_started_again(lab: Lab) -> None:
    client = builder.get(lab)
    client.push('name = "kept"')
    process = lab.process("image-builder")
    assert process is not None
    run.kill(process)
    with pytest.raises(BuilderError):
        client.status()
    assert builder.get(lab).blueprints() == ("kept",)
    assert lab.process("image-builder") not in (None, process)


def test_two_callers_at_once_start_one_service(lab: Lab) -> None:
    found: list[object] = []

    def get() -> None:
        builder.get(Lab(lab.directory)).status()
        found.append(lab.process("image-builder"))

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_service_that_does_not_start_shows_its_log(lab: Lab) -> None:
    in_the_way = lab.socket("image-builder.sock")
    (in_the_way / "something").mkdir(parents=True)
    with pytest.raises(BuilderError, match="did not start") as caught:
        builder.get(lab)
    assert caught.value.log == lab.log("image-builder")
    assert "image-builder.sock" in caught.value.message
    assert lab.processes() == {}


def test_the_machines_own_image_builder_is_named_when_it_is_missing(lab: Lab) -> None:
    with pytest.raises(BuilderError, match=r"/run/weldr/api\.socket") as caught:
        builder.get(lab, "local")
    assert "osbuild-composer.socket" in caught.value.remedy


@pytest.mark.parametrize("name", ["vm", "ssh://core@host", "", "sandbx"])
def test_other_builders_are_refused_by_name(lab: Lab, name: str) -> None:
    with pytest.raises(InputError, match=f"no Image Builder {name!r}"):
        builder.get(lab, name)
    assert lab.processes() == {}


def test_a_boot_iso_that_cannot_be_made(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "file"))
    with pytest.raises(MediaError, match="boot ISO could not be made") as caught:
        builder.boot_iso(lab)
    assert caught.value.log == lab.log("boot-iso")
