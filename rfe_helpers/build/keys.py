"""The keys of a blueprint and their types, those of osbuild/blueprint (pkg/blueprint, as of 2026).

A type is a Python type, a tuple for a union, {…} for a table, [x] for a list of x, ANY for a value
that is passed on unchanged, Passed(x) for one of known keys.
"""

from __future__ import annotations

from typing import Any

ANY = object()


class Passed:
    """A value that is passed on unchanged; that its keys are known serves to notice others."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


def _any(*keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys, ANY)


_NAMED = {"name": str}
_FIREWALL = {
    "ports": [str],
    "services": {"enabled": [str], "disabled": [str]},
    "zones": [{"name": str, "sources": [str]}],
}
_USER = {
    **dict.fromkeys(("name", "description", "password", "key", "home", "shell"), str),
    "groups": [str],
    **dict.fromkeys(("uid", "gid", "expiredate"), int),
    "force_password_reset": bool,
}
_OWNED = {"path": str, "user": (str, int), "group": (str, int), "mode": str}
_FDO = (
    "manufacturing_server_url",
    "diun_pub_key_insecure",
    "diun_pub_key_hash",
    "diun_pub_key_root_certs",
    "di_mfg_string_type_mac_iface",
)
# fmt: off
_REPOSITORY = (
    "id", "name", "filename", "baseurls", "metalink", "mirrorlist", "priority", "enabled",
    "gpgkeys", "gpgcheck", "repo_gpgcheck", "sslverify", "module_hotfixes", "install_from",
)
# fmt: on
_OPENSCAP = {
    **_any("datastream", "profile_id", "policy_id"),
    "tailoring": _any("selected", "unselected"),
    "json_tailoring": _any("profile_id", "filepath"),
}
_RHSM = {
    "dnf_plugins": {"product_id": _any("enabled"), "subscription_manager": _any("enabled")},
    "subscription_manager": {
        "rhsm": _any("manage_repos", "auto_enable_yum_plugins"),
        "rhsmcertd": _any("auto_registration"),
    },
}
_SSHD = (
    "password_authentication",
    "challenge_response_authentication",
    "client_alive_interval",
    "permit_root_login",
)
CUSTOMIZATIONS: dict[str, Any] = {
    "hostname": str,
    "kernel": {"name": str, "append": str},
    "sshkey": [{"user": str, "key": str}],
    "user": [_USER],
    "group": [{"name": str, "gid": int}],
    "timezone": {"timezone": str, "ntpservers": [str]},
    "locale": {"languages": [str], "keyboard": str},
    "firewall": _FIREWALL,
    "services": {"enabled": [str], "disabled": [str], "masked": [str]},
    "filesystem": [{"mountpoint": str, "minsize": (int, str), "size": (int, str)}],
    "disk": ANY,
    "installation_device": str,
    "partitioning_mode": str,
    "fdo": dict.fromkeys(_FDO, str),
    "openscap": Passed(_OPENSCAP),
    "ignition": {"embedded": {"config": str}, "firstboot": {"url": str, "empty": bool}},
    "directories": [{**_OWNED, "ensure_parents": bool}],
    "files": [{**_OWNED, "data": str, "uri": str}],
    "repositories": [Passed(_any(*_REPOSITORY))],
    "fips": bool,
    "installer": {
        "unattended": bool,
        "sudo-nopasswd": [str],
        "kickstart": {"contents": str},
        "modules": {"enable": [str], "disable": [str]},
        "menu-timeout": int,
        "bootloader": ANY,
        "payload": ANY,
    },
    "rpm": Passed({"import_keys": _any("files")}),
    "rhsm": Passed({"config": _RHSM}),
    "containers-storage": Passed(_any("destination-path")),
    "dnf": Passed({"config": _any("set_releasever")}),
    "iso": Passed(_any("application_id", "publisher", "volume_id")),
    "sshd": Passed(_any(*_SSHD)),
    "firstboot": ANY,
    "bootloader": ANY,
    "cacerts": {"pem_certs": [str]},
}
_SPECS = [{"name": str, "version": str}]
BLUEPRINT: dict[str, Any] = {
    **dict.fromkeys(("name", "description", "version", "distro", "architecture"), str),
    "packages": _SPECS,
    "modules": _SPECS,
    "enabled_modules": [{"name": str, "stream": str}],
    "groups": [_NAMED],
    "containers": [{"source": str, "name": str, "tls-verify": bool, "local-storage": bool}],
    "customizations": CUSTOMIZATIONS,
    "minimal": bool,
}
