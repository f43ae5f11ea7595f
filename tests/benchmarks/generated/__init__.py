"""Small real trainings drawn by a seed, as tuning problems with a measured answer.

`blueprint` draws a job: its data, network, optimizer, schedule, metric, length and hyperparameters.
`training` trains it, one setting or many at once. `truth` finds by brute force the largest batch size that
meets the owner's target and writes it to a data file. `jobs` reads that file as problems of the search
benchmark.
"""
