"""The registry of the log formats."""

from autotuner.spec.log_formats import LOG_FORMATS
from autotuner.study import formats


def test_the_annotation_takes_just_the_formats_that_are_read():
    assert set(formats.NAMES) == LOG_FORMATS
