"""What the arguments of most commands have in common."""

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(commands: Commands, name: str, module: str, function: str, help: str) -> argparse.ArgumentParser:
    """One more command, which takes a configuration file and a store.

    Args:
        commands: that it is one of.
        name: as people write it.
        module, function: in `loraloom.server.cli`, what runs it.
        help: what it does, in words that follow its name.
    """
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.set_defaults(module=module, function=function)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration file [loraloom.yaml, if it is there]"
    )
    parser.add_argument("--adapters", metavar="STORE", help="the adapter store: a directory or an fsspec URL")
    return parser
