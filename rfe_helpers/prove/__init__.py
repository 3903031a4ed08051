"""Proofs that updates are safe (notebook 67): slow and broken links, killed machines, power loss.

For example:

>>> from rfe_helpers import open_commit
>>> from rfe_helpers.prove import DISTANT, Link
>>> with Link(site.port, DISTANT) as link:  # as if the server were far away
...     far = open_commit(f"http://127.0.0.1:{link.port}/repo/", update.ref)
>>> link.connections > 0, link.received > 1000
(True, True)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
