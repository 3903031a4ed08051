"""greenboot's behaviour after an update: the sandbox's stand-in.

Runs only in the installed system, from its units:

    count    early in each boot: counts an attempt of a deployment that has not been healthy yet;
             after the last allowed attempt the previous deployment returns without checks
    check    runs check/required.d and check/wanted.d; status 1 if a required check fails
    green    after a healthy boot: records the deployment as good, runs green.d
    red      after a failed check: runs red.d, then reboots, or rolls back after the last attempt
    status   prints the outcome of this boot, which is also the message of the day

Scripts are in /usr/lib/greenboot and /etc/greenboot, as for greenboot. greenboot counts in GRUB's
environment; this program counts in /var/lib/greenboot/state.json, which all deployments share, so
a kernel that never reaches user space is not counted:

    {"good": [commit, …], "trying": {"commit": c, "attempt": n} or null,
     "fallback": {"from": c, "to": c, "why": s, "at": seconds} or null}

A deployment that has been healthy once is never rolled back: the update is not to blame.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/greenboot/state.json")
MOTD = Path("/run/motd.d/boot-status")
RESULT = Path("/run/greenboot-result.json")
DIRECTORIES = (Path("/usr/lib/greenboot"), Path("/etc/greenboot"))
CONFIG = Path("/etc/greenboot/greenboot.conf")
GOOD_KEPT = 10
SCRIPT_SECONDS = BUSY_SECONDS = 300

State = dict[str, Any]


def booted_commit() -> str:
    """The commit of the running deployment, from the kernel's ostree= argument."""
    words = dict(w.partition("=")[::2] for w in Path("/proc/cmdline").read_text().split())
    # /ostree/boot.1/OS/CHECKSUM/0 is a link to the directory of the deployment, <commit>.<serial>.
    return Path("/sysroot" + words["ostree"]).resolve().name.partition(".")[0]


def load() -> State:
    empty: State = {"good": [], "trying": None, "fallback": None}
    # Without a readable file, no deployment is known to be good.
    with contextlib.suppress(OSError, ValueError):
        empty.update(json.loads(STATE.read_text()))
    return empty


def save(state: State) -> None:
    """Write durably: the machine may lose power at any moment, and boots are counted here."""
    STATE.parent.mkdir(parents=True, exist_ok=True)
    temporary = STATE.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(STATE)
    directory = os.open(STATE.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def most_attempts() -> int:
    """GREENBOOT_MAX_BOOT_ATTEMPTS of the configuration, or 3 if that is not a positive number."""
    value = ""
    if CONFIG.exists():
        for line in CONFIG.read_text().splitlines():
            key, _, text = line.partition("=")
            value = text.strip() if key.strip() == "GREENBOOT_MAX_BOOT_ATTEMPTS" else value
    return int(value) if value.isdecimal() and int(value) > 0 else 3


def scripts(kind: str) -> list[Path]:
    """The executable scripts of a kind such as check/required.d, by name."""
    paths = [path for top in DIRECTORIES for path in (top / kind).glob("*.sh")]
    return sorted((p for p in paths if os.access(p, os.X_OK)), key=lambda path: path.name)


def run_scripts(kind: str) -> list[str]:
    """Run all scripts of a kind; returns a line for each that failed."""
    failures = []
    for script in scripts(kind):
        try:
            result = subprocess.run([script], stdin=subprocess.DEVNULL, timeout=SCRIPT_SECONDS)
            reason = f"status {result.returncode}" if result.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"not finished within {SCRIPT_SECONDS} s"
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            failures.append(f"{script}: {reason}")
            say(f"{kind}: {script.name} failed: {reason}")
    return failures


def say(text: str) -> None:
    print(f"greenboot: {text}", flush=True)


def count() -> int:
    state, commit = load(), booted_commit()
    if commit in state["good"]:
        state["trying"] = None
        save(state)
        return 0
    trying = state["trying"]
    attempt = trying["attempt"] + 1 if trying and trying["commit"] == commit else 1
    state["trying"] = {"commit": commit, "attempt": attempt}
    save(state)
    say(f"attempt {attempt} of {most_attempts()} of deployment {commit[:12]}")
    if attempt > most_attempts():
        fall_back(state, commit, f"{most_attempts()} boots did not reach their health checks")
    return 0


def check() -> int:
    failed = run_scripts("check/required.d")
    warned = run_scripts("check/wanted.d")
    RESULT.write_text(json.dumps({"failed": failed, "warned": warned}))
    say_in_motd()
    return 1 if failed else 0


def green() -> int:
    state, commit = load(), booted_commit()
    state["good"] = [*(c for c in state["good"] if c != commit), commit][-GOOD_KEPT:]
    state["trying"] = None
    save(state)
    run_scripts("green.d")
    say_in_motd()
    return 0


def red() -> int:
    run_scripts("red.d")
    state, commit = load(), booted_commit()
    trying = state["trying"]
    if trying is None or trying["commit"] != commit:
        say("this deployment has been healthy before: not rolling back")
        return 0
    if trying["attempt"] < most_attempts():
        say(f"attempt {trying['attempt']} of {most_attempts()} failed: rebooting")
        reboot()
        return 0
    failed = json.loads(RESULT.read_text())["failed"] if RESULT.exists() else []
    fall_back(state, commit, "; ".join(failed) or "its health checks failed")
    return 0


def fall_back(state: State, commit: str, reason: str) -> None:
    """Make the previous deployment the next boot, if there is one."""
    # An update may be in progress; this deployment must not stage another one.
    subprocess.run(["systemctl", "stop", "rpm-ostreed-automatic.service"])
    rpm_ostree("cleanup", "--pending")
    if rpm_ostree("rollback") != 0:
        say("there is no previous deployment to go back to: staying with this one")
        return
    before = default_commit()
    state["fallback"] = {"from": commit, "to": before, "why": reason, "at": int(time.time())}
    state["trying"] = None
    save(state)
    say(f"going back from {commit[:12]} to {before[:12]}: {reason}")
    reboot()


def rpm_ostree(*words: str) -> int:
    """Run rpm-ostree, again while another transaction is in progress; returns its exit status."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        result = subprocess.run(
            ["rpm-ostree", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(result.stdout, end="", flush=True)
        if "Transaction in progress" not in result.stdout or time.monotonic() > end:
            return result.returncode
        time.sleep(1)


def default_commit() -> str:
    """The commit that boots next."""
    status_json = subprocess.run(["rpm-ostree", "status", "--json"], capture_output=True, text=True)
    return str(json.loads(status_json.stdout)["deployments"][0]["checksum"])


def reboot() -> None:
    subprocess.run(["systemctl", "--no-block", "reboot"], check=True)


def status_lines() -> list[str]:
    """The outcome of this boot, and the last fallback while the deployment it chose runs."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else None
    state = load()
    if result is None:
        lines = ["Boot Status is UNKNOWN - health checks have not run yet"]
    elif result["failed"]:
        lines = ["Boot Status is RED - Health Check FAILURE!", *result["failed"]]
    else:
        lines = ["Boot Status is GREEN - Health Check SUCCESS"]
        lines += [f"Wanted check failed: {line}" for line in result["warned"]]
    fallback = state["fallback"]
    if fallback and fallback["to"] == booted_commit():
        lines.append("FALLBACK BOOT DETECTED! Default rpm-ostree deployment has been rolled back.")
        lines.append(f"Deployment {fallback['from']} was not healthy: {fallback['why']}")
    return lines


def say_in_motd() -> None:
    MOTD.parent.mkdir(parents=True, exist_ok=True)
    MOTD.write_text("\n".join(status_lines()) + "\n")


def status() -> int:
    print("\n".join(status_lines()))
    return 0


COMMANDS: dict[str, Callable[[], int]] = {
    "count": count,
    "check": check,
    "green": green,
    "red": red,
    "status": status,
}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: greenboot {{{'|'.join(COMMANDS)}}}", file=sys.stderr)
        return 2
    return COMMANDS[sys.argv[1]]()


if __name__ == "__main__":
    sys.exit(main())
