"""The slow and broken links of `core.link`, for this wing's face."""

from rfe_helpers.core.link import DISTANT, FAST, Link, Quality

__all__ = ["DISTANT", "FAST", "Link", "Quality"]
