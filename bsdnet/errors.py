"""Everything that bsdnet raises for a reason that a user can mend.

    BsdnetError
    ├── ConfigError       a setting has a value that cannot work (also a ValueError)
    ├── CheckpointError   weights are missing, broken, foreign or of another shape
    ├── BackendError      the device or backend asked for is not to be had here
    ├── SourceError       a video, camera, folder or image cannot be read
    ├── SinkError         the result cannot be written
    ├── PipelineError     a stream pipeline is asked for what its state does not allow
    ├── DatasetError      a data set is missing, incomplete or not as expected
    └── TrainingError     a training run cannot start, go on or be resumed

A message says what came, what was expected, and what to do. Commands print it in one line and exit with 1, but with 2
for a `ConfigError`, as for options that cannot be read: trying again would not help.
"""


class BsdnetError(Exception):
    """The root: catch this to catch everything that bsdnet raises on purpose."""


class ConfigError(BsdnetError, ValueError):
    """A setting has a value that cannot work."""


class CheckpointError(BsdnetError):
    """Weights are missing, broken, foreign or of another shape."""


class BackendError(BsdnetError):
    """The device or backend asked for is not to be had here."""


class SourceError(BsdnetError):
    """A video, camera, folder or image cannot be read."""


class SinkError(BsdnetError):
    """The result cannot be written."""


class PipelineError(BsdnetError):
    """A stream pipeline is asked for what its state does not allow."""


class DatasetError(BsdnetError):
    """A data set is missing, incomplete or not as expected."""


class TrainingError(BsdnetError):
    """A training run cannot start, go on or be resumed."""


def first_line(error: object) -> str:
    """The first line of a message, or the error's type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: Exception) -> str:
    """Tell an error to the user; of the system's errors the file and what is the matter with it."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(message.split())
