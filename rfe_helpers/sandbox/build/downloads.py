"""Files of a blueprint whose content is at a URI: fetched before a tree is customized."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import requests

from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import ostree_options

if TYPE_CHECKING:  # tree.py imports this module
    from rfe_helpers.sandbox.build.tree import Work

LARGEST = 16 * 1024**2
SECONDS = 30  # to connect, and between two parts of an answer


def with_content(customizations: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """The customizations with the content of files in `base64` where they have a `uri`.

    Raises BuilderError, with the place in the blueprint, if a file cannot be fetched.
    """
    result = dict(customizations)
    if entries := result.get("files"):
        result["files"] = [
            _fetched(entry, f"customizations.files[{number}].uri", work)
            for number, entry in enumerate(entries)
        ]
    return result


def _fetched(entry: Mapping[str, Any], where: str, work: Work) -> dict[str, Any]:
    rest = {key: value for key, value in entry.items() if key != "base64"}
    if not (uri := entry.get("uri")):
        return rest
    work.on_stage("tree", f"fetch {uri}")
    try:
        reachable = ostree_options.reachable(uri)
        with requests.get(reachable, stream=True, timeout=SECONDS) as answer:
            answer.raise_for_status()
            content = b""
            for piece in answer.iter_content(65536):
                content += piece
                if len(content) > LARGEST:
                    raise BuilderError(f"{where}: {uri} has more than {LARGEST // 1024**2} MiB")
                if work.deadline.expired:
                    raise BuilderError(f"{where}: {uri} takes too long")
    except (requests.RequestException, ValueError) as error:
        raise BuilderError(f"{where}: {uri} cannot be fetched: {error}") from None
    return {**rest, "base64": base64.b64encode(content).decode()}
