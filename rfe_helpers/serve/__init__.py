"""Publish commits, kickstarts and container images over HTTP, on loopback (notebooks 40, 65 to 85).

For example:

>>> from rfe_helpers import serve
>>> site = serve.published(lab)  # serve.publish(lab, artifact.path) publishes another
>>> site.answers
True
>>> print(site.repo_url, site.guest_repo_url)  # for this machine, for its guests
http://127.0.0.1:.../repo/ http://10.0.2.2:.../repo/
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
