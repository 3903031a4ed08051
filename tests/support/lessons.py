"""The lines below a panel, taken from what it shows, and run as a reader runs them."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.panels import text

from rfe_helpers.workbook.ui.lines import OR
from rfe_helpers.workbook.ui.parts import Panel

BIN = Path(sys.executable).parent
# Each block has names of its own only, as in an empty notebook; one interpreter saves time.
_EACH = "import json, sys\nfor block in json.load(sys.stdin): exec(block, {})"
# The commands of composer-cli that the panels name (weldr-client, cmd/composer-cli), over the API.
_COMPOSER_CLI = """#!/bin/sh
[ "$1" = --socket ] || exit 2
socket=$2; shift 2
api() { path=$1; shift; curl -fsS --unix-socket "$socket" "$@" "http://localhost/api/v1/$path"; }
case "$1 $2 $#" in
"blueprints push 3") api blueprints/new -H 'Content-Type: text/x-toml' --data-binary "@$3" ;;
"blueprints undo 4") api "blueprints/undo/$3/$4" -X POST ;;
"modules list 3") api "modules/list/$3" ;;
"compose cancel 3"|"compose delete 3") api "compose/$2/$3" -X DELETE ;;
"compose image 3") api "compose/image/$3" -OJ ;;
"compose start-ostree "*)
  shift 2
  while [ $# -gt 2 ]; do
    case "$1" in --ref|--parent|--url) options="$options${options:+,}\\"${1#--}\\": \\"$2\\"" ;;
    *) exit 2 ;; esac
    shift 2
  done
  api compose -H 'Content-Type: application/json' \
    -d "{\\"blueprint_name\\": \\"$1\\", \\"compose_type\\": \\"$2\\", \\"ostree\\": {$options}}" ;;
*) echo "composer-cli: no such command: $*" >&2; exit 2 ;;
esac
"""


def python_of(panel: Panel) -> str:
    """The Python below a panel."""
    return _block(panel, "Python")


def shells_of(panel: Panel) -> list[str]:
    """The shell lines below a panel: as they stand, and with the other way of their last line."""
    shell = _block(panel, "Terminal")
    *before, last = shell.split("\n")
    if not last.startswith(OR):
        return [shell]
    return [shell, "\n".join([*before[:-1], last.removeprefix(OR)])]


def _block(panel: Panel, name: str) -> str:
    pattern = rf">{name}</span><pre[^>]*>(.*?)</pre>"
    (block,) = re.findall(pattern, text(panel, "lesson"), re.DOTALL)
    return html.unescape(block)


def run_python(blocks: Sequence[str]) -> str:
    """Run blocks of Python in a fresh interpreter; returns what they print."""
    import json

    return _run([sys.executable, "-W", "error", "-c", _EACH], Path("/"), input=json.dumps(blocks))


def run_shell(block: str, directory: Path) -> str:
    """Run lines in a shell whose directory is `directory`, which has a composer-cli."""
    program = directory / "bin" / "composer-cli"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(_COMPOSER_CLI)
    program.chmod(0o755)
    path = f"{program.parent}:{BIN}:{os.environ['PATH']}"
    return _run(["bash", "-euc", block], directory, PATH=path)


def _run(argv: Sequence[str], directory: Path, *, input: str = "", **more: str) -> str:
    result = subprocess.run(
        argv,
        cwd=directory,
        env={**os.environ, **more},
        input=input,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert result.returncode == 0, (argv[-1], result.stdout, result.stderr)
    return result.stdout
