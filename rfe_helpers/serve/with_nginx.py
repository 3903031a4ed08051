"""Serve a repository and kickstarts with the host's nginx, over HTTP or HTTPS.

On disk, below `www/` of the lab (this module writes it):

    nginx.conf          its configuration, with `current` as its root
    current             link to the site directory that is served, replaced atomically
    site-<id>/          repo and kickstarts; repo is a link if a repository directory is published
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from rfe_helpers.commit import archive
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import journal, run
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.errors import CommandFailedError, ServeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve.server import Content, Server, check_port
from rfe_helpers.serve.tls import Certificates, certificates

_PROCESS = "web-server"


def start(content: Content, *, tls: bool, stop_container: Callable[[Lab], None]) -> Server:
    """Serve the content of an archive or a repository directory in place of the earlier server.
    Raises ServeError."""
    run.require("nginx")
    lab = content.lab
    root = lab.path("www", f"site-{secrets.token_hex(4)}")
    try:
        if content.artifact.is_dir():
            root.mkdir()
            (root / "repo").symlink_to(content.artifact.absolute())
            journal.record_shell(shlex.join(["ln", "-s", str(content.artifact), f"{root}/repo"]))
        else:
            content.say("unpacking the repository")
            Repo(archive.unpack(content.artifact, root / "repo")).update_summary()
        for name, text in content.kickstarts.items():
            journal.write(root / name, text)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    stop_container(lab)
    _swap(lab.path("www", "current"), root)
    owned = certificates(lab.path("keys", "tls")) if tls else None
    unchanged = _config(lab, content.port, owned) == _text(_config_path(lab))
    if lab.process(_PROCESS) is None or not unchanged:
        stop(lab)
        check_port(content.port)
        content.say("starting nginx")
        _start_nginx(lab, content.port, owned)

    def check() -> None:
        if lab.process(_PROCESS) is None:
            log = lab.log("nginx")
            raise ServeError(f"nginx has ended:\n{run.tail_of(_text(log))}", log=log)

    return Server("nginx", check, ca=str(owned.ca) if owned else "")


def stop(lab: Lab) -> None:
    """End the lab's nginx, if it runs."""
    process = lab.process(_PROCESS)
    if process is not None:
        run.stop(process)
    lab.remove_process(_PROCESS)


def _config_path(lab: Lab) -> Path:
    return lab.path("www", "nginx.conf")


def _config(lab: Lab, port: int, tls: Certificates | None) -> str:
    access = lab.path("logs", "nginx-access.log")
    directory = _config_path(lab).parent
    return nginx_config(directory, access, port, as_root=os.getuid() == 0, tls=tls)


def _start_nginx(lab: Lab, port: int, tls: Certificates | None) -> None:
    config, log = _config_path(lab), lab.log("nginx")
    (config.parent / "scratch").mkdir(exist_ok=True)
    journal.record_shell(shlex.join(["mkdir", "-p", f"{config.parent}/scratch"]))
    journal.write(config, _config(lab, port, tls))
    argv: list[str | Path] = ["nginx", "-e", log, "-p", config.parent, "-c", config]
    try:
        run.run([*argv, "-t"], seconds=30)
        run.start(argv, log=log, on_start=lambda process: lab.add_process(_PROCESS, process))
    except CommandFailedError as error:
        raise ServeError(f"nginx does not start:\n{error.tail}", log=log) from None


def nginx_config(
    directory: Path, access: Path, port: int, *, as_root: bool, tls: Certificates | None = None
) -> str:
    """The configuration of the host's nginx: like the container's, but on loopback, in the lab.

    Workers of root run as root, since other users cannot read a lab. The access log has the time
    in seconds, the status and the bytes sent, then the request.
    """
    quoted, quoted_access = _quoted(str(directory))[1:-1], _quoted(str(access))[1:-1]
    temporary = "\n".join(
        f'    {kind}_temp_path "{quoted}/scratch/{kind}";'
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    secured = ""
    if tls is not None:
        secured = (
            f"\n        ssl_certificate {_quoted(str(tls.certificate))};"
            f"\n        ssl_certificate_key {_quoted(str(tls.key))};"
        )
    return f"""\
{"user root;" if as_root else ""}
worker_processes 2;
daemon off;
pid "{quoted}/nginx.pid";
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    log_format load '$msec $status $bytes_sent "$request"';
    access_log "{quoted_access}" load buffer=64k flush=1s;
    sendfile on;
    # An OSTree client asks for thousands of small files.
    keepalive_requests 100000;
    default_type application/octet-stream;
{temporary}
    server {{
        listen {LOOPBACK}:{port}{" ssl" if tls else ""};{secured}
        root "{quoted}/current";
    }}
}}
"""


def _quoted(value: str) -> str:
    """A string for nginx, which has the escapes of JSON except \\u."""
    return json.dumps(value, ensure_ascii=False)


def _swap(link: Path, target: Path) -> None:
    """Point `link` at `target` atomically, then remove older sites."""
    temporary = link.with_name(f".current-{secrets.token_hex(4)}")
    temporary.symlink_to(target.name)
    temporary.replace(link)
    journal.record_shell(shlex.join(["ln", "-sfn", target.name, str(link)]))
    for old in link.parent.glob("site-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
