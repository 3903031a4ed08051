"""References to images, in the forms of origins and of refs."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfe_helpers

sys.path.append(str(Path(rfe_helpers.__file__).parent / "sandbox/guest/root/usr/lib"))

from edge.failure import Failure
from edge.image_reference import ImageReference, escaped

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "skopeo", "again"),
    [
        ("ostree-unverified-registry:a.b:5000/c/d:1", "docker://a.b:5000/c/d:1", ""),
        (
            "ostree-unverified-image:docker://a/b",
            "docker://a/b",
            "ostree-unverified-registry:a/b",
        ),
        (
            "ostree-unverified-image:registry:a/b",
            "docker://a/b",
            "ostree-unverified-registry:a/b",
        ),
        ("ostree-unverified-image:oci:/dir", "oci:/dir", ""),
        (f"ostree-image-signed:docker://a/b@{DIGEST}", f"docker://a/b@{DIGEST}", ""),
        ("ostree-unverified-image:oci-archive:x.tar", "oci-archive:x.tar", ""),
    ],
)
def test_the_forms_of_references(text: str, skopeo: str, again: str) -> None:
    image = ImageReference.parse(text)
    assert image.skopeo == skopeo
    assert str(image) == (again or text)
    assert ImageReference.parse(str(image)) == image


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b",
        "edge:rhel/9/x86_64/edge",
        "ostree-unverified-registry:",
        "ostree-unverified-registry:A B",
        "ostree-unverified-registry:a/b\nc",
        "ostree-unverified-registry:--option",
        "ostree-unverified-registry:a/" + "b" * 600,
        "ostree-unverified-image:http://a/b",
        "ostree-remote-registry:edge:a/b",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        ImageReference.parse(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_names_of_refs_are_different_and_valid(one: str, other: str) -> None:
    def is_valid(name: str) -> bool:  # of ostree: no empty part, and only these characters
        return all(c.isascii() and (c.isalnum() or c in "-_/") for c in name) and "//" not in name

    assert is_valid(escaped(one))
    assert not escaped(one).startswith("/")
    assert (escaped(one) == escaped(other)) == (one == other)
