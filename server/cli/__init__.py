"""The command line. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Sequence

from loraloom.server.cli.parser import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; by default the process's own.

    Returns:
        The exit status: 0 done, 1 refused or failed, 130 interrupted, 141 nobody reads the output any more. Arguments
        that do not fit end the process with status 2.
    """
    command = parse(sys.argv[1:] if arguments is None else arguments)
    from loraloom.adapters.errors import AdapterError
    from loraloom.compose.errors import ComposeError
    from loraloom.server.errors import ServerError

    try:
        status = command.run()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (AdapterError, ComposeError, ServerError, OSError) as error:
        print(f"loraloom: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
