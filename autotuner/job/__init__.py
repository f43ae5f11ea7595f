"""The registered job in, a trial out."""
