"""From a blueprint to a tree, to a commit, to an artifact."""
