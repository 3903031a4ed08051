"""OSTree commits (notebook 30): read them wherever they are, compare and sign them.

For example:

>>> from rfe_helpers.commit import diff, open_commit
>>> first = open_commit(artifact.path)  # or a commit.tar, a repository, a URL
>>> first.ref
'debian/13/x86_64/edge'
>>> [package.name for package in diff(first, update, files=False).added]
['jq', 'libjq1', ...]
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
