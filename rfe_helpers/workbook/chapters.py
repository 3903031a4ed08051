"""The notebooks as chapters of one life cycle: their numbers, titles and steps."""

from __future__ import annotations

from rfe_helpers.lab.lab import NOTEBOOK_OF

# The steps of the life cycle, in order: number of the notebook, title, name of the step in the lab.
LIFE_CYCLE = (
    ("10", "Image Builder", "image-builder"),
    ("20", "commit", "commit"),
    ("30", "look inside", "inspect"),
    ("40", "serve", "serve"),
    ("50", "install", "install"),
    ("60", "update, roll back", "update"),
)

# The step of each notebook, by its number.
STEPS = {number: step for step, number in NOTEBOOK_OF.items()}

# Optional notebooks and their steps; a run leaves them out unless they are named.
FURTHER = {n: step for n, step in STEPS.items() if n not in {number for number, *_ in LIFE_CYCLE}}

# The notebooks whose results each one needs.
NEEDS = {
    "20": ("10",),
    "30": ("20",),
    "40": ("20",),
    "50": ("40",),
    "60": ("50",),
    "65": ("60",),
    "67": ("65",),
    "70": ("40",),
    "80": ("10",),
    "85": ("80",),
    "95": ("20",),
    "100": ("60",),
}


def number_of(name: str) -> str:
    """The number at the beginning of a notebook's name: "20" of "20-build-a-commit.ipynb".

    Numbers have two digits or three, so that they are ordered as integers, not as texts.
    """
    return name.partition("-")[0]
