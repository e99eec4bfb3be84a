"""From a command's options to the configuration."""

import getpass
import sys
from argparse import Namespace

from loraloom.server.cli.parser import SETTINGS
from loraloom.server.settings import Configuration, configure


def configured(options: Namespace) -> Configuration:
    """The configuration of a command whose options may hold any of the settings.

    Raises:
        InvalidSettings: an option, a variable or the file does not fit.
    """
    names = ["model", "adapters", "mixture_truncate", *(flag.removeprefix("--").replace("-", "_") for flag in SETTINGS)]
    configuration = configure({name: getattr(options, name, None) for name in names}, options.config)
    if configuration.ignored:
        print(f"loraloom: ignored, as there is no such setting: {', '.join(configuration.ignored)}", file=sys.stderr)
    return configuration


def user() -> str | None:
    """Who runs the command, if that has a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return None
