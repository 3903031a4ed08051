"""The parts of a notebook: checks, progress, tables, panels; and headless runs of notebooks.

For example:

    from rfe_helpers.workbook import Progress, Table, check

    with Progress("Composing") as progress:
        artifact = compose(lab, "edge", on_progress=progress)
    check(artifact.path.exists(), "the artifact is in the lab")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
