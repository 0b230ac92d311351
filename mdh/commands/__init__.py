"""One module per command: ``main`` (a single command) or ``app`` (a group of verbs)."""
