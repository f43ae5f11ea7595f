"""The chart: its templates, its schema, and what is generated from it."""
