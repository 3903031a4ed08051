"""Boot into the staged update, if there is one; applyupdate.service runs this.

It reads `rpm-ostree status --json` rather than the output for people.
"""

import json
import subprocess
import sys


def main() -> int:
    status = subprocess.run(
        ["rpm-ostree", "status", "--json"], stdout=subprocess.PIPE, check=True
    ).stdout
    deployments = json.loads(status)["deployments"]
    booted = next(each for each in deployments if each["booted"])
    first = deployments[0]
    if not first.get("staged"):
        print("nothing is staged: staying with " + name(booted))
        return 0
    print("rebooting from " + name(booted) + " into " + name(first), flush=True)
    return subprocess.run(["systemctl", "reboot"]).returncode


def name(deployment: "dict[str, str]") -> str:
    return "{} ({})".format(deployment.get("version") or "no version", deployment["checksum"][:12])


if __name__ == "__main__":
    sys.exit(main())
