"""Where trials run: on a cluster or on this machine, behind one small Protocol (`base.Backend`)."""
