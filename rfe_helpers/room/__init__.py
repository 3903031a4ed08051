"""A room of people: JupyterHub, where each has a lab of their own, and the trainer's page.

For example, what `rfe room start` does:

>>> from rfe_helpers import room
>>> training = room.Room("room")
>>> training.change(room.read_settings(None, seats=12))  # or of a room.toml
>>> training.start(print)  # doctest: +SKIP
>>> training.address
'https://127.0.0.1:8443/'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
