"""Reports of a study for people: a self-contained HTML page, figures, and terminal output."""
