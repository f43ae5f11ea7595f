"""A tuning as one self-contained HTML page, for people who would rather look than read."""

from autotuner.report.page import render

__all__ = ["render"]
