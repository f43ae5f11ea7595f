"""LARS, LAMB and LANS in float64, one block at a time, transcribed from their papers.

They share nothing with the code under test: no torch, no foreach, no batches, no state kept in place.
"""

import math

import numpy as np


def lars(w, grads, *, lr, momentum, weight_decay, trust_coefficient):
    """You et al. 2017, Algorithm 1, with the rate inside the velocity as printed there.

    Where the rate changes, the velocity is corrected by the ratio of rates (Goyal et al. 2017, remark 3).
    """
    v = np.zeros_like(w)
    previous = None
    for g, rate in zip(grads, lr, strict=True):
        w_norm, g_norm = np.linalg.norm(w), np.linalg.norm(g)
        local = trust_coefficient * w_norm / (g_norm + weight_decay * w_norm) if w_norm and g_norm else 1.0
        correction = rate / previous if previous else 1.0
        v = momentum * correction * v + rate * local * (g + weight_decay * w)
        w = w - v
        previous = rate
        yield w


def lamb(w, grads, *, lr, betas, eps, weight_decay):
    """You et al. 2020, Algorithm 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate) in enumerate(zip(grads, lr, strict=True), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        u = m_hat / (np.sqrt(v_hat) + eps) + weight_decay * w
        w = w - rate * _ratio(w, u) * u
        yield w


def lans(w, grads, *, lr, betas, eps, weight_decay):
    """Zheng et al. 2020, Algorithm 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate) in enumerate(zip(grads, lr, strict=True), start=1):
        g_tilde = g / np.linalg.norm(g) if np.linalg.norm(g) else g
        m = betas[0] * m + (1 - betas[0]) * g_tilde
        v = betas[1] * v + (1 - betas[1]) * g_tilde**2
        root = np.sqrt(v / (1 - betas[1] ** t)) + eps
        r, c = m / (1 - betas[0] ** t) / root, g_tilde / root
        p, q = r + weight_decay * w, c + weight_decay * w
        w = w - rate * (betas[0] * _ratio(w, p) * p + (1 - betas[0]) * _ratio(w, q) * q)
        yield w


def _ratio(w, update):
    norms = math.sqrt(float((w * w).sum())), math.sqrt(float((update * update).sum()))
    return norms[0] / norms[1] if all(norms) else 1.0
