"""The search benchmark: tuning problems with a known answer, and policies that tune them in simulated time.

`families` names the sets of problems, `problems` holds those that are given by data files, `policies` the
search under test and its rivals, `simulate` drives a policy and scores it, `report` and `calibration` print
tables, one a family. `tests/benchmarks/search.py` is the command.
"""
