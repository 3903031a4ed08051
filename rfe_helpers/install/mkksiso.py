"""A boot ISO with a kickstart inside: by mkksiso of lorax if it is installed, else by xorriso.

mkksiso takes the kickstart as its first argument (lorax 28 to 34.9.16), as `--ks` (from 34.9.17
and 37.6), or in both ways (from 34.9.19 and 37.8): its help says which. From 37.10 and 38.4 on it
needs root unless it gets `--skip-mkefiboot`, which leaves the menu of UEFI machines unchanged. Its
output must not exist.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.errors import CommandFailedError, MediaError
from rfe_helpers.install import media
from rfe_helpers.lab.profile import Profile

PROGRAM = "mkksiso"
_SECONDS = 1800


def argv(
    help_text: str, kickstart: Path, iso: Path, target: Path, *, root: bool = True
) -> list[str | Path]:
    """The command line of mkksiso in the form that its `--help` describes."""
    skip = ["--skip-mkefiboot"] if "--skip-mkefiboot" in help_text and not root else []
    if "--ks" in help_text:
        return [PROGRAM, *skip, "--ks", kickstart, iso, target]
    return [PROGRAM, *skip, kickstart, iso, target]


def with_kickstart(iso: Path, kickstart: Path, target: Path) -> Path:
    """Make `target`, a boot ISO that installs by the kickstart without asking anything.

    Returns `target`. Raises MediaError with the last lines of the program's output.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files
    >>> from rfe_helpers.install import kickstart, mkksiso
    >>> text = kickstart.render(lab.profile, url=site.guest_repo_url, user="core", ssh_key="ssh-…")
    >>> files.write(Path("edge.ks"), text)
    >>> mkksiso.with_kickstart(iso, Path("edge.ks"), Path("edge.iso"))
    PosixPath('edge.iso')
    """
    boot = media.read(iso)
    if not kickstart.is_file():
        raise MediaError(f"there is no kickstart {kickstart}")
    if run.which(PROGRAM) is None:
        name = kickstart.name
        label = boot.label.replace(" ", "\\x20")
        arguments = f"inst.ks=hd:LABEL={label}:/{name}"
        return media.add_files(iso, target, {name: kickstart}, arguments=arguments)
    help_text = run.run([PROGRAM, "--help"], check=False).stdout
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".mkksiso-") as directory:
        unfinished = Path(directory, "unfinished.iso")
        try:
            command = argv(help_text, kickstart, iso, unfinished, root=os.geteuid() == 0)
            run.run(command, seconds=_SECONDS)
        except CommandFailedError as error:
            raise MediaError(
                f"{PROGRAM} could not put {kickstart} into {iso}: {error.tail}",
                remedy=error.remedy or "run it as root, or remove lorax: then xorriso is used",
            ) from None
        unfinished.chmod(0o644)
        unfinished.replace(target)
    files.sync_directory(target.parent)
    return target


def check_release(boot: media.BootIso, profile: Profile) -> None:
    """Raise MediaError if a boot ISO and the profile have different releases: one release's
    installer may not be able to deploy another's commit.

    >>> from rfe_helpers.install import media, mkksiso
    >>> mkksiso.check_release(media.read(iso), lab.profile)
    """
    if boot.label != profile.iso.label:
        raise MediaError(
            f"{boot.path} is {boot.release} (label {boot.label}), this lab is for {profile.title} "
            f"(label {profile.iso.label})",
            remedy="use the boot ISO of that release, or a lab with the profile of this one",
        )
