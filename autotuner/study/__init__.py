"""A study: what the runs of a job have measured so far."""
