"""The arguments of the commands about who may use a server, who changed what, and who used how much."""

import argparse
from pathlib import Path

from loraloom.server.cli.arguments import Commands, command


def add_audit(commands: Commands) -> None:
    """Add `loraloom audit …`."""
    group = commands.add_parser(
        "audit",
        help="show who changed what in a store, and check that log",
        description="The log of every change in a store, which shows whether it was tampered with.",
    )
    audit = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = command(audit, "list", "audit", "list_entries", "list the changes, oldest first")
    listing.add_argument("--name", metavar="N", help="only those of this adapter or key")
    listing.add_argument("--action", metavar="A", help="only publish, tag, rollback, remove, pin, unpin, key.create, …")
    listing.add_argument("--by", metavar="WHO", help="only those by this user or key")
    listing.add_argument("--since", metavar="WHEN", help="only since 2026-12-31, or for the last 7d, 12h or 30m")
    listing.add_argument("--json", action="store_true", help="print JSON")
    verify = command(audit, "verify", "audit", "verify", "check the log, and the records that it names")
    verify.add_argument("--head", metavar="NUMBER:HASH", help="an end of the log that was printed earlier")
    command(audit, "adopt", "audit", "adopt", "take the records that have no entry into the log")


def add_keys(commands: Commands) -> None:
    """Add `loraloom keys …`."""
    group = commands.add_parser(
        "keys",
        help="say who may use the servers of a store, and for what",
        description="Manage the keys of a store. Its servers follow within a second; they need not be restarted.",
    )
    keys = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = _key_command(keys, "create", "create", "make a key, and print it: this once, and nothing else")
    create.add_argument("--name", required=True, help="what the key is called in lists, metrics and logs")
    update = _key_command(keys, "update", "update", "change what a key may do; its secret stays")
    for parser, role in ((create, "infer"), (update, None)):
        _add_terms(parser, role)
    listing = _key_command(keys, "list", "list_keys", "list the keys, without their secrets")
    listing.add_argument("--json", action="store_true", help="print JSON")
    rotate = _key_command(keys, "rotate", "rotate", "give a key a new secret, and print it")
    rotate.add_argument(
        "--grace", metavar="SPAN", help="how long the one before it stays valid, such as 1h [not at all]"
    )
    revoke = _key_command(keys, "revoke", "revoke", "end a key at once")
    for parser in (update, rotate, revoke):
        parser.add_argument("name", metavar="NAME")


def _key_command(keys: Commands, name: str, function: str, help: str) -> argparse.ArgumentParser:
    parser = keys.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.set_defaults(module="keys", function=function)
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file [loraloom.yaml]")
    # Where `--adapters` says which adapters a key is for, it cannot name the store, as it does everywhere else.
    flags = ["--store"] if name in ("create", "update") else ["--store", "--adapters"]
    parser.add_argument(
        *flags, dest="adapters", metavar="STORE", help="the adapter store: a directory or an fsspec URL"
    )
    return parser


def _add_terms(parser: argparse.ArgumentParser, role: str | None) -> None:
    told = f" [{role}]" if role else ""
    parser.add_argument(
        "--role", choices=("infer", "publish", "admin", "monitor"), default=role, help=f"what it is for{told}"
    )
    parser.add_argument(
        "--adapters", dest="names", metavar="PATTERNS", help="adapters that it may use: 'team-a/*,public/*', or '*'"
    )
    parser.add_argument("--publish", metavar="PATTERNS", help="names under which it may publish [those of --adapters]")
    parser.add_argument(
        "--sources", metavar="PREFIXES", help="what it may publish from, or all [what the server allows]"
    )
    parser.add_argument("--expires", metavar="WHEN", help="a span such as 90d, 12h or 30m, a date, or never [never]")
    parser.add_argument("--rpm", metavar="N", help="requests a minute, or none [none]")
    parser.add_argument("--tpm", metavar="N", help="tokens a minute, of prompts and answers, or none [none]")
    parser.add_argument("--concurrency", metavar="N", help="requests at a time, or none [none]")


def add_usage(commands: Commands) -> None:
    """Add `loraloom usage`."""
    usage = command(commands, "usage", "usage", "usage", "sum up what was used, by key, adapter or time")
    usage.add_argument(
        "--by",
        metavar="GROUP[,GROUP]",
        default="key,adapter",
        help="key, adapter, model (with its version), path, month, day, hour, status or ending [key,adapter]",
    )
    usage.add_argument("--since", metavar="T", help="requests from then on: 2026-01-31, 2026-01-31T12:00, or 30d (ago)")
    usage.add_argument("--until", metavar="T", help="requests before then")
    usage.add_argument("--key", metavar="NAME", help="requests of this key only")
    usage.add_argument("--folder", metavar="DIR", type=Path, help="folder of the ledgers [the setting `usage`]")
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
