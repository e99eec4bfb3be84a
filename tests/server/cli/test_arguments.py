"""What most commands take."""

import argparse
from pathlib import Path

from loraloom.server.cli.arguments import command


def test_a_command_knows_its_function_and_takes_a_file_and_a_store() -> None:
    parser = argparse.ArgumentParser()
    made = command(parser.add_subparsers(), "look", "looking", "look", "look at a store")
    assert made.description == "Look at a store."
    options = parser.parse_args(["look", "--config", "c.yaml", "--adapters", "s3://bucket"])
    assert (options.module, options.function) == ("looking", "look")
    assert (options.config, options.adapters) == (Path("c.yaml"), "s3://bucket")
    assert parser.parse_args(["look"]).adapters is None
