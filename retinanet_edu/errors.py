"""What the package raises when the fault lies in what it was given.

Each message names the file or the value, what is wrong with it, and what to do.
"""


class RetinaNetError(Exception):
    """The base of the package's own errors; the command line prints it as one line."""


class DataError(RetinaNetError, ValueError):
    """A picture, an annotation or a folder of data cannot be used as it is."""


class CheckpointError(RetinaNetError, ValueError):
    """A file of weights is damaged, foreign, or does not fit the model."""


class TrainingError(RetinaNetError, RuntimeError):
    """Training cannot go on, for example because the loss is no longer finite."""


class ExportError(RetinaNetError, RuntimeError):
    """A model cannot be written for use elsewhere, for example because a package is missing."""
