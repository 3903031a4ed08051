"""The parts of a notebook: checks, progress, tables, panels; and headless runs of notebooks.

For example:

>>> from rfe_helpers.workbook import Progress, Table, check
>>> with Progress("Reading the commit") as progress:
...     packages = commit.packages()
… Reading the commit · 0:00
✔ Reading the commit · 0:00 · done
>>> check(packages, "the commit lists its packages")
✔ the commit lists its packages
>>> Table(("package", "architecture"), [(each.name, each.arch) for each in packages[:2]])
package  architecture
-------  ------------
adduser  all
apt      amd64
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
