"""What a study knows of its runs: measurements, causes of failure, proof that settings take effect."""
