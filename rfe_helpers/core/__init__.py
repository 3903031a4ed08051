"""What everything else stands on: processes, waiting, files, SSH, and units for people.

For example:

>>> from rfe_helpers.core import Deadline, run, size
>>> result = run.run(["ostree", "--version"], deadline=Deadline(10))
>>> result.stdout
"libostree:..."
>>> size(123_456)
'123.5 kB'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
