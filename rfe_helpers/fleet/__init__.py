"""Devices that update themselves (notebooks 80, 85), and a model of large fleets (notebooks
90, 105).

For example:

>>> from rfe_helpers.fleet import Fleet, Mirror, Pull, plan
>>> pull = Pull(requests=45, bytes=667_000)
>>> result = plan(Fleet(100_000), pull, Mirror(requests=5000))
>>> round(result.half_staged / 3600)  # hours
12
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
