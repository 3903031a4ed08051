"""The command lines `rfe` and `vm`: one file for each group of commands."""
