"""The process that the supervisor starts: the engine's own server, on the supervisor's socket."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

from loraloom.server import draining
from loraloom.server.settings import handed_over

ORPHAN_GRACE = 20.0
"""Seconds that a server without a supervisor gets to exit after its requests have drained."""


def main() -> None:
    """Serve until told to stop; exit when the supervisor is gone."""
    handoff = handed_over()
    if handoff is None:
        sys.exit("this module is started by `loraloom serve MODEL`")
    patience = handoff.settings.drain_timeout + ORPHAN_GRACE
    threading.Thread(target=follow, args=(handoff.control, patience), daemon=True).start()
    from loraloom.server import engine  # takes many seconds, in which the supervisor may end already

    engine.serve(sys.argv[1:], socket.socket(fileno=handoff.socket))


def follow(control: int, patience: float) -> None:
    """Hear what the supervisor says, and stop when its end of the channel closes, which it does however it ends.

    Args:
        control: file descriptor of this process's end.
        patience: seconds after which this process and all that it started are killed, if they are still there.
    """
    # A supervisor that ends before it has read all that it was told resets the channel.
    with contextlib.suppress(ConnectionResetError), socket.socket(fileno=os.dup(control)) as channel:
        while word := channel.recv(1):
            if word == draining.WORD:
                draining.BEGUN.set()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
