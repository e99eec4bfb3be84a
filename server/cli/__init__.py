"""The command line. Nothing heavy is imported before a command needs it."""

import sys
from collections.abc import Sequence

from loraloom.server.cli.parser import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; by default the process's own.

    Returns:
        The exit status: 0 done, 1 refused or failed, 2 unusable arguments.
    """
    command = parse(sys.argv[1:] if arguments is None else arguments)
    from loraloom.adapters.errors import AdapterError
    from loraloom.server.errors import ServerError

    try:
        return command.run()
    except (AdapterError, ServerError) as error:
        print(f"loraloom: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
