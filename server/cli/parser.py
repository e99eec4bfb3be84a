"""The arguments of every command. Imports the standard library only, so that `--help` is there at once."""

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from loraloom.server.cli.access_parser import add_audit, add_keys, add_usage
from loraloom.server.cli.arguments import Commands, command

SETTINGS = {
    "--served-name": (str, "N", "name of the base model in requests"),
    "--host": (str, "H", "address to listen on [127.0.0.1]"),
    "--port": (int, "P", "port to listen on [8000]"),
    "--cache": (Path, "DIR", "folder for downloads and the cache of a remote store"),
    "--jobs": (Path, "DIR", "folder of the jobs of `compose`"),
    "--max-loras": (int, "N", "adapters in one batch [8]"),
    "--max-cpu-loras": (int, "N", "adapters in flight, and kept in main memory [64]"),
    "--max-lora-rank": (str, "R", "largest rank served [by the store, with room for mixtures]"),
    "--max-mixture-terms": (int, "N", "adapters in one mixture [32]"),
    "--mixture-cache-bytes": (int, "BYTES", "bound of the folder of built mixtures, 4 GiB unless told"),
    "--proxy-small": (str, "MODEL", "small model whose adapters steer MODEL by proxy-tuning"),
    "--proxy-expert": (str, "MODEL", "tuned copy of the small model that steers every request"),
    "--proxy-alpha": (float, "X", "strength of proxy-tuning where a request says none [1]"),
    "--proxy-max-alpha": (float, "X", "largest strength that a request may say, of either sign [4]"),
    "--queue-timeout": (float, "S", "seconds a request waits for its turn, and for its adapter [60]"),
    "--drain-timeout": (float, "S", "seconds that running requests get at shutdown [30]"),
    "--max-restarts": (int, "N", "restarts of a dead server within ten minutes [5]"),
}
"""Flags that become settings; `server/settings.py` has them all, with their meaning and their limits."""


@dataclass(frozen=True)
class Command:
    """What to run: a function of a module that is imported only now."""

    module: str
    function: str
    options: argparse.Namespace
    extra: tuple[str, ...]

    def run(self) -> int:
        """Import the module and run the command."""
        module = importlib.import_module(f"loraloom.server.cli.{self.module}")
        return int(getattr(module, self.function)(self.options, self.extra) or 0)


def parse(arguments: Sequence[str]) -> Command:
    """Turn arguments into a command; exits with status 2 and a message when they do not fit."""
    ours, extra = _split(arguments)
    parser = _parser()
    options = parser.parse_args(ours)
    if extra and options.module != "serve":
        parser.error(f"only `serve` takes arguments for vLLM after `--`, not {extra[0]}")
    return Command(options.module, options.function, options, extra)


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    given = list(arguments)
    if "--" not in given:
        return given, ()
    at = given.index("--")
    return given[:at], tuple(given[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loraloom", description="Serve many LoRA adapters of one language model, chosen per request."
    )
    parser.add_argument("--version", action="version", version=f"loraloom {version('loraloom')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_demo(commands)
    _add_doctor(commands)
    _add_adapters(commands)
    _add_compose(commands)
    _add_proxy(commands)
    add_usage(commands)
    add_keys(commands)
    add_audit(commands)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    for flag, (kind, metavar, help) in SETTINGS.items():
        parser.add_argument(flag, type=kind, metavar=metavar, help=help)
    parser.add_argument(
        "--insecure", action="store_const", const=True, help="let others reach this server though it has no keys"
    )
    parser.add_argument(
        "--mixture-truncate",
        action=argparse.BooleanOptionalAction,
        help="serve mixtures whose rank is too large truncated, with the error in a header [no]",
    )


def _add_serve(commands: Commands) -> None:
    parser = command(commands, "serve", "serve", "serve", "serve a base model and every adapter in the store")
    parser.usage = "loraloom serve MODEL [options] [-- vLLM arguments]"
    parser.add_argument("model", nargs="?", metavar="MODEL", help="directory or Hugging Face id of the base model")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings and where each came from, and exit"
    )
    _add_settings(parser)


def _add_demo(commands: Commands) -> None:
    parser = command(
        commands, "demo", "demo", "demo", "serve a small model with its demo adapters and show a mixed batch"
    )
    parser.add_argument("--host", metavar="H", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, metavar="P", help="port to listen on [8000]")
    parser.add_argument("--once", action="store_true", help="stop after the table instead of staying up")


def _add_doctor(commands: Commands) -> None:
    parser = command(commands, "doctor", "doctor", "doctor", "say what is wrong with this machine or the configuration")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="also check that this model can be served")
    _add_settings(parser)


def _add_adapters(commands: Commands) -> None:
    group = commands.add_parser(
        "adapters", help="add, list, tag, pin and remove adapters", description="Manage the store."
    )
    adapters = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_publishing(adapters)
    _add_looking(adapters)
    _add_changing(adapters)
    _add_mix(adapters)


def _add_publishing(adapters: Commands) -> None:
    add = command(adapters, "add", "publishing", "add", "add an adapter as a new version")
    add.add_argument("source", metavar="SOURCE", help="a folder, a Hugging Face id, or a URL such as s3://bucket/path")
    add.add_argument("--name", required=True, help="the adapter's name, one or two parts: NAME or ORG/NAME")
    _add_publication(add)
    several = command(adapters, "import", "publishing", "import_modules", "add what vLLM's --lora-modules lists")
    several.add_argument(
        "entries", nargs="+", metavar="ENTRY", help="name=path, a JSON object, or @FILE with a JSON list or one a line"
    )
    _add_publication(several)


def _add_publication(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tag", help="also move this tag to the new version")
    parser.add_argument("--base", metavar="MODEL", help="the base model to check it against [what the adapter names]")
    parser.add_argument("--allow-noop", action="store_true", help="add it even if it changes nothing")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, metavar="R", help="rank of the LoRA into which another kind is converted")
    size.add_argument("--energy", type=float, metavar="E", help="instead, the share of each update to keep, up to 1")
    parser.add_argument("--max-kl", type=float, metavar="X", help="refuse a conversion that moves predictions further")
    parser.add_argument("--probe", type=Path, metavar="FILE", help="text on which a conversion is measured [built in]")


def _add_looking(adapters: Commands) -> None:
    listing = command(adapters, "list", "adapters", "list_adapters", "list the adapters")
    listing.add_argument("--json", action="store_true", help="print JSON")
    show = command(adapters, "show", "adapters", "show", "show an adapter's versions, tags and provenance")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--json", action="store_true", help="print JSON")
    verify = command(adapters, "verify", "adapters", "verify", "read everything again and compare it with its digests")
    verify.add_argument("name", metavar="NAME", nargs="?")
    export = command(adapters, "export", "adapters", "export", "write a version as a folder that peft and vLLM load")
    export.add_argument("adapter", metavar="NAME[@VERSION|@TAG]")
    export.add_argument("folder", metavar="DIR", type=Path, help="a folder that is empty, or is not there yet")


def _add_mix(adapters: Commands) -> None:
    mix = command(adapters, "mix", "mix", "mix", "publish a mixture of adapters as an adapter of its own")
    mix.add_argument(
        "mixture", metavar="MIXTURE", help="what to mix, such as 0.6*sql+0.4*date or 'svd(rank=8):sql+date'"
    )
    mix.add_argument("--name", required=True, help="the name of the new adapter")
    mix.add_argument("--tag", help="also move this tag to the new version")
    mix.add_argument("--rank", type=int, metavar="R", help="truncate it to this rank [its true rank]")
    mix.add_argument("--base", metavar="MODEL", help="the base model to check it against [that of the adapters]")
    mix.add_argument("--allow-noop", action="store_true", help="publish it even if it changes nothing")


def _add_changing(adapters: Commands) -> None:
    tag = command(adapters, "tag", "adapters", "tag", "let a tag name a version")
    tag.add_argument("name", metavar="NAME")
    tag.add_argument("tag", metavar="TAG")
    tag.add_argument("version", metavar="VERSION", type=int)
    rollback = command(adapters, "rollback", "adapters", "rollback", "let a tag name what it named before")
    rollback.add_argument("name", metavar="NAME")
    rollback.add_argument("tag", metavar="TAG")
    pin = command(adapters, "pin", "adapters", "pin", "let servers keep an adapter in main memory")
    pin.add_argument("adapter", metavar="NAME[@VERSION|@TAG]")
    unpin = command(adapters, "unpin", "adapters", "unpin", "end a pin")
    unpin.add_argument("adapter", metavar="NAME[@VERSION|@TAG]")
    remove = command(adapters, "remove", "adapters", "remove", "remove one version, or all of an adapter")
    remove.add_argument("adapter", metavar="NAME[@VERSION]")
    gc = command(adapters, "gc", "adapters", "gc", "free the space of removed versions and killed writers")
    gc.add_argument("--dry-run", action="store_true", help="only tell what would be removed")


def _add_compose(commands: Commands) -> None:
    group = commands.add_parser(
        "compose",
        help="learn a weighting of adapters from a few examples",
        description="Learn weightings of adapters from a few examples, without gradients, and publish what is better.",
    )
    compose = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    init = command(compose, "init", "compose", "init", "write a job with every field explained")
    init.add_argument("file", metavar="FILE", type=Path, nargs="?", default=Path("job.yaml"), help="[job.yaml]")
    run = _job_command(compose, "run", "run", "run a job, from its description to its verdict")
    run.add_argument("spec", metavar="SPEC", type=Path, help="the job's description, YAML or JSON")
    run.add_argument("--base", metavar="MODEL", help="the base model [what the job or its adapters name]")
    run.add_argument("--check", action="store_true", help="only check it, and say what would be done")
    demo = command(compose, "demo", "compose_demo", "demo", "run one of the demo's jobs on the demo model")
    demo.add_argument(
        "name", metavar="JOB", nargs="?", default="two-tasks", help="two-tasks, people or chat [two-tasks]"
    )
    demo.add_argument("--jobs", type=Path, metavar="DIR", help="folder of the jobs [in the user's data folder]")
    listing = _job_command(compose, "list", "list_jobs", "list the jobs")
    listing.add_argument("--json", action="store_true", help="print JSON")
    show = _job_command(compose, "show", "show", "show where a job stands, or what it has found")
    show.add_argument("id", metavar="ID")
    show.add_argument("--json", action="store_true", help="print JSON")
    for name, help in (
        ("report", "draw a job's report again, and say where it is"),
        ("resume", "go on with a job that was interrupted"),
        ("cancel", "end a job that runs somewhere"),
    ):
        _job_command(compose, name, name, help).add_argument("id", metavar="ID")


def _job_command(compose: Commands, name: str, function: str, help: str) -> argparse.ArgumentParser:
    parser = command(compose, name, "compose", function, help)
    parser.add_argument("--jobs", type=Path, metavar="DIR", help="folder of the jobs [in the user's data folder]")
    return parser


def _add_proxy(commands: Commands) -> None:
    group = commands.add_parser(
        "proxy",
        help="steer a large model by adapters of a small one",
        description="Proxy-tuning: adapters of a small model steer a large one, which stays as it is.",
    )
    proxy = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = command(proxy, "check", "proxy", "check", "say whether two models fit together, and what that costs")
    check.add_argument("large", metavar="LARGE", help="directory or Hugging Face id of the model to steer")
    check.add_argument("small", metavar="SMALL", help="the small model that adapters are trained on")
    check.add_argument("--expert", metavar="TUNED", help="a fully tuned copy of SMALL, as for `--proxy-expert`")
    check.add_argument("--json", action="store_true", help="print JSON")
    evaluation = command(proxy, "eval", "proxy_eval", "run", "compare steering with direct tuning, on your own tasks")
    evaluation.add_argument("spec", metavar="SPEC", type=Path, help="the models and the tasks, YAML or JSON")
    evaluation.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("proxy-eval"), help="folder for what is found [proxy-eval]"
    )
    evaluation.add_argument("--check", action="store_true", help="only check it, and say what would be done")
    evaluation.add_argument("--json", action="store_true", help="print JSON")
