"""Installs an OSTree system as a kickstart asks, as Anaconda does; it runs in the boot ISO.

The order is: find the kickstart, check every line of it, run %pre, choose the disk, ask the
repository for the commit; up to here nothing is written. Then partition, pull, deploy, boot
loader, users and settings, %post, and the end that was asked for.

On every console there is one line per step, and exactly one line at the end:

    RFE-INSTALL-STEP: what is done now
    RFE-INSTALL-OK
    RFE-INSTALL-FAILED: why; "line N: directive: …" where a line of the kickstart is the reason

It needs the Python standard library, pykickstart, and the tools of the sandbox's base tree.
"""
