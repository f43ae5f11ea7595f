"""Decide the next action of a study, in one pure function: `decide(spec, trials, now) -> Decision`."""

from autotuner.decide.next_action import decide

__all__ = ["decide"]
