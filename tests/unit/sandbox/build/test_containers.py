"""Container images in a commit: what may be named, and how a store is prepared for OSTree."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from support import image_registry

from rfe_helpers.commit import oci
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BlueprintError, CommandFailedError
from rfe_helpers.sandbox.build import containers, customize, tree


@pytest.mark.parametrize(
    "source",
    [
        "registry.example/app",
        "localhost:5000/a/b_c:1.2-x",
        "quay.io/fedora/fedora@sha256:" + "a" * 64,
        "registry.example/app:1@sha256:" + "a" * 64,
        "busybox",
    ],
)
def test_references_are_taken(source: str) -> None:
    containers.check([{"source": source, "name": "registry.example/other:1"}])


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"source": "docker://registry.example/app"},
        {"source": "registry.example/App"},
        {"source": "--help"},
        {"source": "a b"},
        {"source": "a\n"},
        {"source": "$(reboot)"},
        {"source": "registry.example/app", "name": "x;y"},
        {"source": "registry.example/app", "local-storage": True},
        {"source": "a" * 600},
    ],
    ids=str,
)
def test_what_is_not_a_reference_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(BlueprintError, match=r"containers\[0\]\."):
        containers.check([entry])


def test_an_image_is_fetched_and_a_missing_one_is_known_beforehand(tmp_path: Path) -> None:
    layer = oci.write_layer(
        tmp_path / "layer.tar.gz", lambda tar: oci.add_file(tar, "hello", b"hi\n"), compression=1
    )
    oci.write_archive(tmp_path / "image.tar", [layer], {}, created_by="test")
    work = tree.Work(tmp_path, tmp_path, tmp_path / "log", Deadline(60))
    with image_registry.serving(tmp_path / "image.tar") as name:
        entry = {"source": f"{name}:1", "tls-verify": False}
        containers.resolve([entry])
        (archive,) = containers.fetch([entry], work)
        with pytest.raises(CommandFailedError, match="nothing"):
            containers.resolve([{**entry, "source": name.replace("/app", "/nothing")}])
    inspected = run.run(["skopeo", "inspect", "--raw", f"oci-archive:{archive}"]).stdout
    assert layer.digest in inspected


def test_hooks_quote_what_a_blueprint_names(tmp_path: Path) -> None:
    archive = tmp_path / "a work" / "container-0.tar"
    entry = {"source": "registry.example/app:1", "name": "other/name:2"}
    upload, copy, clean = containers.hooks([entry], [archive])
    assert upload == f"--customize-hook=upload '{archive}' /rfe/container.tar"
    assert copy.endswith('+$1/rfe/run]"other/name:2')
    assert "/rfe/container.tar" in clean


def test_whiteouts_get_the_name_that_ostree_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customize, "ROOT", tmp_path)
    store = tmp_path / "usr/share/containers/storage"
    layer = store / "overlay/abc/diff/etc"
    layer.mkdir(parents=True)
    os.mknod(layer / "gone", stat.S_IFCHR, 0)
    (layer / "kept").write_text("x")
    customize.containers(store)
    assert sorted(path.name for path in layer.iterdir()) == [".ostree-wh.gone", "kept"]
    assert (layer / ".ostree-wh.gone").is_file()
    configuration = (tmp_path / "etc/containers/storage.conf").read_text()
    assert 'additionalimagestores = ["/usr/share/containers/storage"]' in configuration


def test_a_layer_that_hides_a_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = tmp_path / "overlay/abc/diff/etc"
    layer.mkdir(parents=True)
    monkeypatch.setattr(customize, "is_opaque", lambda path: path == layer)
    with pytest.raises(SystemExit, match="squash the image's layers"):
        customize.containers(tmp_path)
