"""Training, in torch: optimizers, schedules, micro-batches, layouts, compression and meters."""
