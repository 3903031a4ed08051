from . import application, cost, description, figures, layers, survey
from .description import Device
from .layers import BOOTC
from .plots import plot_break_even, plot_completion, plot_load, plot_splay
from .rollout import RPM_OSTREE, Fleet, Mirror, Plan, Pull, plan
from .splay import smallest_splay, sweep
from .survey import APPLYUPDATE, LOOKS, PODMAN, DeviceState, ask_all, everywhere, move_timer, timers
from .timer import DAY, moment, parse_timer, span, utc

__all__ = [
    "APPLYUPDATE",
    "BOOTC",
    "DAY",
    "LOOKS",
    "PODMAN",
    "RPM_OSTREE",
    "Device",
    "DeviceState",
    "Fleet",
    "Mirror",
    "Plan",
    "Pull",
    "application",
    "ask_all",
    "cost",
    "description",
    "everywhere",
    "figures",
    "layers",
    "moment",
    "move_timer",
    "parse_timer",
    "plan",
    "plot_break_even",
    "plot_completion",
    "plot_load",
    "plot_splay",
    "smallest_splay",
    "span",
    "survey",
    "sweep",
    "timers",
    "utc",
]
