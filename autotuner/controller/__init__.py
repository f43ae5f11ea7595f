"""The controller: the long-running process that tunes every annotated job of a cluster."""
