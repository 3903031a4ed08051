"""Learn, test and run RHEL for Edge: the package behind the workbook's notebooks."""

__version__ = "0.1.0"
