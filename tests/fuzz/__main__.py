"""`python -m tests.fuzz [--short] [NAME…]`: random input for everything that reads what strangers write.

Exits with 1 when something was found. Every failure prints the case and how to have it again; put it beside the
property, as `@example(…)`, with its fix.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
FILES = {"grammar": "selections as text and JSON", "files": "adapters' files", "body": "requests to the gate"}
SERVER = {"server": "a running server, by schemathesis"}
ROUND = 10_000
"""Cases of one process: what hypothesis keeps of each grows."""
LONG, SHORT = 100_000, 500
LONG_REQUESTS, SHORT_REQUESTS = 5_000, 200


@dataclass(frozen=True)
class Result:
    """What came of one target.

    Attributes:
        name: of the target.
        cases: how many were tried.
        seconds: how long that took.
        findings: what must not happen, and did.
    """

    name: str
    cases: int
    seconds: float
    findings: int


def file(name: str, cases: int, seed: int) -> Result:
    """Try the properties of one file, a round after the other."""
    began, done, failed = time.monotonic(), 0, 0
    while done < cases:
        size = min(ROUND, cases - done)
        # The schemathesis plugin of pytest leaves the values out where hypothesis prints a case.
        command = [sys.executable, "-m", "pytest", str(FOLDER / f"test_{name}.py"), "-q", "-p", "no:schemathesis"]
        command += ["-p", "no:cacheprovider", f"--hypothesis-seed={seed + done}"]
        done_round = subprocess.run(command, env={**os.environ, "FUZZ_CASES": str(size)}, check=False)
        failed += done_round.returncode != 0
        done += size
    return Result(name, done, time.monotonic() - began, failed)


def server(requests: int, seed: int, url: str | None, authorization: str | None) -> Result:
    """Send requests to a server that runs already, or to one of its own."""
    from tests.fuzz.target import target  # needs torch, which the other targets do without

    began = time.monotonic()
    with target(url, {"authorization": authorization} if authorization else {}) as fuzzing:
        sent = fuzzing.run(requests, seed)
    return Result("server", sent, time.monotonic() - began, len(fuzzing.findings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Try everything, show a table, and return the exit status."""
    named = {**FILES, **SERVER}
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Find input that is not refused well.")
    about = "; ".join(f"{name}: {what}" for name, what in named.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all. {about}")
    parser.add_argument("--short", action="store_true", help="a few minutes instead of an hour")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="of all random numbers [another]")
    parser.add_argument("--url", help="a server that runs already and opens /openapi.json [starts one]")
    parser.add_argument("--authorization", help="the header of every request to it, such as 'Bearer KEY'")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(named):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(named)}")
    runs: dict[str, Callable[[], Result]] = {
        name: lambda name=name: file(name, SHORT if options.short else LONG, options.seed) for name in FILES
    }
    requests = SHORT_REQUESTS if options.short else LONG_REQUESTS
    runs["server"] = lambda: server(requests, options.seed, options.url, options.authorization)
    print(f"seed {options.seed}", flush=True)
    results = [run() for name, run in runs.items() if name in (options.names or runs)]
    print(table(results))
    return 0 if not any(result.findings for result in results) else 1


def table(results: Sequence[Result]) -> str:
    """The results, a line each."""
    lines = [f"{'':10}{'cases':>10}{'seconds':>10}{'findings':>10}"]
    lines += [f"{each.name:10}{each.cases:>10,}{each.seconds:>10.0f}{each.findings:>10}" for each in results]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
