"""A study: what a job's trials have measured, how they ended, and their durable record."""
