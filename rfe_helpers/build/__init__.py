"""Image Builder (notebooks 10 and 20): get one, describe a system, compose it, download the result.

For example:

>>> from rfe_helpers.build import connect, to_toml
>>> client = connect(lab)
>>> print(to_toml(client.blueprint("edge")))
name = "edge"
...
>>> len(client.depsolve("edge"))
2...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
