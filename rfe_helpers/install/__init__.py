"""What machines are installed from (notebooks 50, 70): kickstarts and boot ISOs.

For example:

    from rfe_helpers.install import kickstart, media

    text = kickstart.render(lab.profile, url=site.guest_repo_url, user="core", ssh_key=key)
    print(kickstart.validate(text, "RHEL9"))         # warnings of that release's installer
    print(media.read(iso).label)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
