"""Publish commits, kickstarts and container images over HTTP, on loopback (notebooks 40, 65 to 85).

For example:

    from rfe_helpers import serve
    from rfe_helpers.lab import Lab

    site = serve.publish(Lab("~/rfe-lab"), artifact.path)
    print(site.repo_url, site.guest_repo_url)        # for this machine, for its guests
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
