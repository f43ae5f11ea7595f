"""The logs of runs: the measurements of the metric, or a doubt about them, and what else they say."""
