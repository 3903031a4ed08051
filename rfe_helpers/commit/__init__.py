"""OSTree commits (notebook 30): read them wherever they are, compare and sign them.

For example:

    from rfe_helpers.commit import diff, open_commit

    commit = open_commit("0f3a…-container.tar")      # or a commit.tar, a repository, a URL
    print(commit.ref, commit.id, len(commit.packages()))
    print(diff(open_commit("older.tar"), commit).added)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
