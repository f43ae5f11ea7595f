"""The training of `train.py` with the autotuner's SDK: no arguments to parse, no line to format.

Without the autotuner it trains with the defaults given here; in a trial, the tuner's values replace them.
"""

from train import train

from autotuner import sdk


def main() -> None:
    """Train with the hyperparameters from the environment, and report to the tuner."""
    hp = sdk.hyperparameters(batch_size=32, learning_rate=0.05, momentum=0.9, seed=0)

    def report(epoch: int, accuracy: float) -> None:
        sdk.report(epoch, accuracy=accuracy)

    train(hp.batch_size, hp.learning_rate, hp.momentum, hp.seed, report)


if __name__ == "__main__":
    main()
