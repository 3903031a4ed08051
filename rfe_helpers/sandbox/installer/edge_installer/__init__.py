"""Installs an OSTree system from a kickstart, as Anaconda does; it runs in the boot ISO.

First it reads the kickstart, checks every line of it, runs %pre, chooses the disk, and asks the
repository for the commit; up to here nothing is written. Then it partitions the disk, pulls and
deploys the commit, installs the boot loader, creates users, applies settings, runs %post, and
reboots, powers off or halts.

It prints a line for each step on every console, and exactly one line at the end:

    RFE-INSTALL-STEP: the step that begins
    RFE-INSTALL-OK
    RFE-INSTALL-FAILED: the reason; "line N: directive: …" for a line of the kickstart

It needs the Python standard library, pykickstart, and the tools of the sandbox's base tree.
"""
