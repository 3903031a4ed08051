"""A small edge container out of this machine's own nginx, as Image Builder would make one."""

import re
import shutil
from pathlib import Path

from support.trees import make_commit_tar, make_container, make_tree

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run

REF = "debian/13/x86_64/edge"
NGINX_CONF = """\
pid /tmp/nginx.pid;
daemon off;
events { worker_connections 256; }
http { access_log off; error_log stderr; server { listen 8080; root /usr/share/nginx/html; } }
"""


def make_repository(directory: Path, content: str) -> Repo:
    """A repository with one bootable commit."""
    tree = make_tree(directory / "tree.tar", {"usr/share/note": content})
    repo = Repo(directory / "repo").init()
    repo.commit_tar(tree, REF, subject=content, version="1", packages=[])
    return repo


def make_web_container(directory: Path, content: str) -> Path:
    """A container.tar that serves a repository whose commit has `content` as its subject."""
    directory.mkdir(parents=True, exist_ok=True)
    root = directory / "root"
    program = run.which("nginx")
    assert program is not None, "this test needs nginx"
    listed = run.run(["ldd", program]).stdout
    for library in [str(program), *re.findall(r"(/\S+) \(0x", listed)]:
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    for name, text in {
        "etc/nginx.conf": NGINX_CONF,
        "etc/passwd": "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\nnobody:x:65534:\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for empty in ("tmp", "var/log/nginx", "var/lib/nginx", "proc", "sys", "dev"):
        (root / empty).mkdir(parents=True)
        (root / empty).chmod(0o1777)
    repo = make_repository(directory, content)
    web = {"usr/share/nginx/html/repo": repo.path}
    return make_container(directory / "container.tar", [{".": root}, web])


def make_web_commit(directory: Path, content: str) -> Path:
    """A commit.tar with a repository like that of `make_web_container`."""
    directory.mkdir(parents=True, exist_ok=True)
    composed = directory / "composed"
    composed.mkdir()
    make_repository(composed, content)
    (composed / "tree.tar").unlink()
    (composed / "compose.json").write_text("{}")
    return make_commit_tar(directory / "commit.tar", composed)
