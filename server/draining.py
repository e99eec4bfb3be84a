"""Whether this process has been told to finish: set by the supervisor's word, looked at by the gate."""

import threading

BEGUN = threading.Event()
"""Set when nothing new is to begin."""
WORD = b"d"
"""What the supervisor says to the server that it is about to stop."""
