"""Every error that the compose package raises.

    ComposeError
    ├── InvalidSpec        (ValueError)    the job's description does not fit, or contradicts itself
    ├── InvalidExamples    (ValueError)    the examples cannot be used for this job
    ├── InvalidPool        (ValueError)    these adapters cannot be composed in this way
    ├── JobNotFound        (LookupError)   there is no such job
    ├── JobBusy            (RuntimeError)  another process is running the job
    ├── DamagedJob         (ValueError)    the job's files contradict each other
    └── Interrupted        (RuntimeError)  the job ended early, and can be resumed
        ├── ServerLost                     the server that scores does not answer any more
        └── Cancelled                      somebody cancelled it

Each is also a builtin error, so that callers may catch either. Every message says what to do next.
"""


class ComposeError(Exception):
    """Base of every error of this package."""


class InvalidSpec(ComposeError, ValueError):
    """The job's description does not fit, or contradicts itself."""


class InvalidExamples(ComposeError, ValueError):
    """The examples cannot be used for this job."""


class InvalidPool(ComposeError, ValueError):
    """These adapters cannot be composed in this way."""


class JobNotFound(ComposeError, LookupError):
    """There is no such job."""


class JobBusy(ComposeError, RuntimeError):
    """Another process is running the job."""


class DamagedJob(ComposeError, ValueError):
    """The job's files contradict each other."""


class Interrupted(ComposeError, RuntimeError):
    """The job ended before it was done; what it has found so far is kept, and it can be resumed."""


class ServerLost(Interrupted):
    """The server that scores does not answer any more."""


class Cancelled(Interrupted):
    """Somebody cancelled the job."""
