"""Its being here puts tests/ on the path of imports, for what several suites share (support/)."""
