"""Deep Gradient Compression in float64, transcribed from Lin et al. 2018, algorithm 4.

One process's part at a time, with full vectors and masks; no buckets, no messages, no state kept in place.
"""

import numpy as np


def deep_gradient_compression(gradients, *, momentum, counts):
    """Yield the mean of what the processes send, step by step.

    Args:
        gradients: Of each step, one vector a process.
        momentum: Of SGD.
        counts: How many values each process sends, step by step.
    """
    processes, size = gradients[0].shape
    u, v = np.zeros((processes, size)), np.zeros((processes, size))
    for g, count in zip(gradients, counts, strict=True):
        sent = np.zeros((processes, size))
        for k in range(processes):
            u[k] = momentum * u[k] + g[k]
            v[k] = v[k] + u[k]
            threshold = np.sort(np.abs(v[k]))[-count]
            mask = np.abs(v[k]) >= threshold
            sent[k] = v[k] * mask
            v[k] = v[k] * ~mask
            u[k] = u[k] * ~mask
        yield sent.sum(0) / processes
