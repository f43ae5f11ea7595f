"""The registered job in, a trial out: validation, and the manifest that runs a suggestion."""
