"""One run of the workbook: a lab with its paths, ports, results and processes; and the releases.

For example:

>>> from rfe_helpers.lab import Lab
>>> lab = Lab("my-lab")  # made if it is not there
>>> print(lab.profile.title, lab.processes())
Sandbox (Debian 13, no subscription needed) {}
>>> lab.path("logs")
PosixPath('.../my-lab/logs')
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
