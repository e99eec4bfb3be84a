"""Every error that the evaluation raises.

    ServerError
    ├── InvalidEvaluation  (ValueError)    the description does not fit, or a file that it names
    └── EvaluationFailed   (RuntimeError)  a server did not start, or did not answer

Each is also a builtin error, so that callers may catch either. Every message says what to do next.
"""

from loraloom.server.errors import ServerError


class InvalidEvaluation(ServerError, ValueError):
    """The description does not fit, or a file that it names."""


class EvaluationFailed(ServerError, RuntimeError):
    """A server did not start, or did not answer; what the servers before it gave is kept."""
