from .containerfile import Translation, translate, write
from .context import ContextFile, Remark
from .counterparts import Counterpart, counterparts
from .host import BootcHost, parse_host, read_host
from .image import (
    BASE,
    REPOSITORY,
    PushedImage,
    base_image,
    build_image,
    lint,
    push_base,
    pushed,
    write_layer,
)
from .installer import installer_iso
from .plan import PlanStep, plan
from .signing import ImageKey, policy_script, sign, signing_key

__all__ = [
    "BASE",
    "REPOSITORY",
    "BootcHost",
    "ContextFile",
    "Counterpart",
    "ImageKey",
    "PlanStep",
    "PushedImage",
    "Remark",
    "Translation",
    "base_image",
    "build_image",
    "counterparts",
    "installer_iso",
    "lint",
    "parse_host",
    "plan",
    "policy_script",
    "push_base",
    "pushed",
    "read_host",
    "sign",
    "signing_key",
    "translate",
    "write",
    "write_layer",
]
