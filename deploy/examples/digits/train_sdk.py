"""The training of `train.py` with the autotuner's SDK: no arguments to parse, no line to format.

Run by hand it trains with the defaults given here; in a trial the tuner's values take their place.
"""

from train import train

from autotuner import sdk


def main() -> None:
    """Train with what the environment says, and report to the tuner."""
    hp = sdk.hyperparameters(batch_size=32, learning_rate=0.05, momentum=0.9, seed=0)

    def report(epoch: int, accuracy: float) -> None:
        sdk.report(epoch, accuracy=accuracy)

    train(hp.batch_size, hp.learning_rate, hp.momentum, hp.seed, report)


if __name__ == "__main__":
    main()
