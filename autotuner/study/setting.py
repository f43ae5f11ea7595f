"""A setting: a batch size with hyperparameters, without a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.spec import environment_value
from autotuner.trial import ParameterValue, Trial


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting: a batch size with hyperparameters, without a seed."""

    batch_size: int
    items: tuple[tuple[str, ParameterValue], ...]

    @classmethod
    def of(cls, batch_size: int, parameters: Mapping[str, ParameterValue]) -> Setting:
        """Return the setting; the order of the hyperparameters does not matter."""
        return cls(batch_size, tuple(sorted(parameters.items())))

    @property
    def parameters(self) -> dict[str, ParameterValue]:
        """The hyperparameters by name."""
        return dict(self.items)

    @property
    def key(self) -> str:
        """The setting as text: equal for settings whose trials have equal environments."""
        named = ",".join(f"{name}={environment_value(value)}" for name, value in self.items)
        return f"{self.batch_size};{named}"


def setting(trial: Trial) -> Setting:
    """Return the setting of a trial."""
    return Setting.of(trial.suggestion.batch_size, trial.suggestion.parameters)
