"""The boot ISO of the sandbox: what Red Hat's boot ISO and Anaconda are for RHEL.

    build.py            makes the ISO out of the base tree, once, in the cache
    media/              what goes into it besides programs: initramfs module, units, GRUB menu
    edge_installer/     the program in it that installs what a kickstart asks for

Nothing here is imported by the workbook: `python -m rfe_helpers.sandbox.installer --cache DIR`
prints the path of the ISO as its last line.
"""
