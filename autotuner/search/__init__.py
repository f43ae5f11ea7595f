"""The search for the largest batch size that meets the target: models, proposals, and when to stop.

The only package that imports optuna. Everything is a function of the spec and the trials; caches are keyed by
content and never change a result.
"""
