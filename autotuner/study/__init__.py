"""A study: the measurements of a job's trials, their outcomes, and their durable record."""
