"""One line for a script that trains with a framework: apply the hyperparameters, and report.

`autotuner.train.callbacks.huggingface` is for Hugging Face's `Trainer`, `autotuner.train.callbacks.lightning`
for Lightning's. Each imports its framework, which is not among the autotuner's dependencies; this package
imports neither.
"""
