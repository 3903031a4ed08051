"""Devices that update themselves (notebooks 80, 85), and a model of large fleets (notebook 90).

For example:

    from rfe_helpers.fleet import Fleet, Mirror, Pull, plan

    pull = Pull(requests=45, bytes=667_000)
    result = plan(Fleet(1_000_000), pull, Mirror(requests=5000))
    print(result.peak_requests, result.half_staged)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
