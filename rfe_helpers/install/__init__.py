"""What machines are installed from (notebooks 50, 70): kickstarts and boot ISOs.

For example:

>>> from rfe_helpers.install import kickstart, media
>>> url, key = site.guest_repo_url, lab.public_key
>>> text = kickstart.render(lab.profile, url=url, user="core", ssh_key=key)
>>> kickstart.validate(text, "RHEL9")  # warnings of that release's installer
()
>>> media.read(iso).label
'Debian-13-Edge-x86_64'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
