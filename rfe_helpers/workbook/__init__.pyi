from . import doctor, headless
from .devices import timer_table, watch
from .drawings import connections, deployments, tree
from .exercises import exercise
from .guidance import begin, life_cycle, times
from .progress import Live, Progress
from .show import Markup, Picture, Table, bars, check, facts, mask, size
from .ui import BlueprintEditor, CommitBrowser, ComposePanel, MachinePanel, NodePanel

__all__ = [
    "BlueprintEditor",
    "CommitBrowser",
    "ComposePanel",
    "Live",
    "MachinePanel",
    "Markup",
    "NodePanel",
    "Picture",
    "Progress",
    "Table",
    "bars",
    "begin",
    "check",
    "connections",
    "deployments",
    "doctor",
    "exercise",
    "facts",
    "headless",
    "life_cycle",
    "mask",
    "size",
    "timer_table",
    "times",
    "tree",
    "watch",
]
