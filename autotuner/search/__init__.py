"""Where next? The search for the largest batch size that meets the target.

The only place that imports optuna. All of it is a function of the spec and the trials;
caches are keyed by content and never change an answer.
"""
