"""Container images as archives, read back as the specification says."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from rfe_helpers.commit import oci


def one_file(text: bytes) -> Any:
    def fill(tar: tarfile.TarFile) -> None:
        oci.add_directory(tar, "www", 0o750)
        oci.add_file(tar, "www/version", text, 0o600)
        oci.add_link(tar, "version", "www/version")

    return fill


def written(tmp_path: Path) -> tuple[list[oci.Layer], dict[str, bytes]]:
    """An image of two layers, and the members of its archive."""
    layers = [
        oci.write_layer(tmp_path / "a.tar.gz", one_file(b"1")),
        oci.write_layer(tmp_path / "b.tar.gz", one_file(b"2"), compression=0),
    ]
    target = tmp_path / "image.tar"
    oci.write_archive(target, layers, {"Cmd": ["/run"], "Env": ["A=b"]}, created_by="a test")
    members = {}
    with tarfile.open(target) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            members[entry.name] = file.read()
    return layers, members


def test_every_digest_and_size_is_that_of_what_it_names(tmp_path: Path) -> None:
    layers, members = written(tmp_path)
    assert json.loads(members["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    def blob(described: dict[str, Any]) -> bytes:
        content = members[f"blobs/{described['digest'].replace(':', '/')}"]
        assert described["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert described["size"] == len(content)
        return content

    (entry,) = json.loads(members["index.json"])["manifests"]
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    assert config["config"] == {"Cmd": ["/run"], "Env": ["A=b"]}
    contents = [gzip.decompress(blob(layer)) for layer in manifest["layers"]]
    digests = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in contents]
    assert config["rootfs"] == {"type": "layers", "diff_ids": digests}
    assert [layer.digest for layer in layers] == [
        layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]
    ]
    assert len(config["history"]) == len(layers)
    assert len(members) == 2 + 2 + len(layers)


def test_a_layer_holds_what_was_added(tmp_path: Path) -> None:
    _, members = written(tmp_path)
    layer = oci.write_layer(tmp_path / "c.tar.gz", one_file(b"1"))
    with tarfile.open(fileobj=io.BytesIO(members[f"blobs/sha256/{layer.digest}"])) as tar:
        entries = {entry.name: (entry.mode, entry.linkname, entry.isdir()) for entry in tar}
    assert entries["www"] == (0o750, "", True)
    assert entries["www/version"] == (0o600, "", False)
    assert entries["version"][1] == "www/version"


def test_a_tar_is_a_layer_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    with tarfile.open(path, "w") as tar:
        oci.add_file(tar, "version", b"1")
    layer = oci.Layer.of_tar(path)
    assert layer.digest == layer.content_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert layer.size == path.stat().st_size
    assert layer.media_type.endswith(".layer.v1.tar")
    assert oci.write_layer(tmp_path / "a", one_file(b"1")).media_type.endswith(".tar+gzip")


def test_the_same_content_makes_the_same_layer(tmp_path: Path) -> None:
    first = oci.write_layer(tmp_path / "a", one_file(b"1"))
    again = oci.write_layer(tmp_path / "b", one_file(b"1"))
    other = oci.write_layer(tmp_path / "c", one_file(b"2"))
    assert (first.digest, first.content_digest) == (again.digest, again.content_digest)
    assert other.digest != first.digest


def test_an_anonymous_entry_says_nothing_of_who_made_it() -> None:
    entry = tarfile.TarInfo("a")
    entry.uid, entry.mtime, entry.uname = 1000, 5, "somebody"
    assert oci.anonymous(entry) is entry
    assert (entry.uid, entry.gid, entry.mtime, entry.uname, entry.gname) == (0, 0, 0, "", "")
