"""The versions of all programs of the control plane, pinned here and nowhere else."""

KUBERNETES = "1.36.3"
TRAINING_OPERATOR = "1.9.4"
HELM = "4.3.1"
JOBSET = "0.12.0"
TRAINER = "2.3.0"
KUEUE = "0.17.0"
