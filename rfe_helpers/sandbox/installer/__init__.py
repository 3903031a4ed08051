"""The boot ISO of the sandbox, in the place of Red Hat's boot ISO and Anaconda.

    iso.py              makes the ISO from the base tree, once, in the cache
    media/              what goes into it besides programs: initramfs module, units, GRUB menu
    edge_installer/     the program in it that carries out a kickstart

The workbook imports none of it: it runs `python -m rfe_helpers.sandbox.installer --cache DIR`,
which prints the path of the ISO as its last line.
"""
