"""What a person types in place of a request to Image Builder where a release has `image-builder`: a
command that builds from a blueprint in a file, without the service.

For reading and pasting, as composer_cli.py. The options are those of osbuild/image-builder-cli
(doc/01-usage.md and cmd/image-builder, 2026-06); `image-builder manifest` takes those of `build`,
and prints what a build would do.
"""

from __future__ import annotations

import json
import shlex

from rfe_helpers.core.journal import ApiRequest

_OPTIONS = {"ref": "--ostree-ref", "parent": "--ostree-parent", "url": "--ostree-url"}


def image_builder(request: ApiRequest, distro: str) -> str:
    """The command of image-builder that does what a request for a compose, or for the types of
    images, asks for; "" for other requests: they are about the service's own store and queue.

    image_builder(ApiRequest("…", "GET", "/api/v1/compose/types"), "rhel-9.7")
    """
    path = request.path.partition("?")[0].removeprefix("/api/")
    if (request.method, path) == ("GET", "v1/compose/types"):
        return shlex.join(["image-builder", "list", "--filter", f"distro:{distro}"])
    if (request.method, path) != ("POST", "v1/compose"):
        return ""
    try:
        body = json.loads(request.body)
        words = ["sudo", "image-builder", "build", "--distro", distro]
        words += ["--blueprint", f"{body['blueprint_name']}.toml"]
        ostree = body.get("ostree") or {}
        for key, option in _OPTIONS.items():
            words += [option, str(ostree[key])] if ostree.get(key) else []
        return shlex.join([*words, str(body["compose_type"])])
    except (ValueError, KeyError, TypeError):
        return ""  # a body that was cut in the journal
