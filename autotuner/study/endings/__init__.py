"""The ends of runs: the outcome and, from the last lines of the logs, its cause."""
