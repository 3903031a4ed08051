"""Panels for the mouse, which notebooks show under "With the mouse".

Only this package imports ipywidgets. Every panel calls the functions that the cells above it call,
and shows the Python and the shell line that do the same. Its content comes from the lab and its
services at each refresh, never from the kernel's memory, so that a restarted kernel and a second
window show the same.

A panel has a static twin: HTML and text of the moment it was shown. A run without a browser shows
only that, and so does a saved notebook (see rfe_helpers/workbook/jupyter.py).
"""

from rfe_helpers.workbook.ui.blueprint import BlueprintEditor
from rfe_helpers.workbook.ui.commit import CommitBrowser
from rfe_helpers.workbook.ui.compose import ComposePanel
from rfe_helpers.workbook.ui.machine import MachinePanel
from rfe_helpers.workbook.ui.node import NodePanel

__all__ = ["BlueprintEditor", "CommitBrowser", "ComposePanel", "MachinePanel", "NodePanel"]
