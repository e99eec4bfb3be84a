"""A comparison from its first server to its last."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from loraloom.server.proxy.evaluation.about import about
from loraloom.server.proxy.evaluation.asking import asking
from loraloom.server.proxy.evaluation.files import refuse_complete, write
from loraloom.server.proxy.evaluation.outcome import Measured, result_of
from loraloom.server.proxy.evaluation.plan import Plan
from loraloom.server.proxy.evaluation.result import Result
from loraloom.server.proxy.evaluation.rounds import Tell, ask_rounds
from loraloom.server.proxy.evaluation.servers import ServerPlan, servers_of, vllm_arguments
from loraloom.server.proxy.evaluation.serving import Start, free_port, serving
from loraloom.server.proxy.evaluation.speed import time_writing

SERVE = (sys.executable, "-m", "loraloom.server.cli", "serve")
_OWN = "LORALOOM_"


def evaluate(plan: Plan, out: Path, environment: Mapping[str, str], tell: Tell, serve: Sequence[str] = SERVE) -> Result:
    """Start one server after the other, ask it, and write down what was found as soon as it is done.

    Args:
        plan: what to do.
        out: folder for `result.json`, `report.png`, `answers.jsonl` and the servers' logs; made if need be.
        environment: for the servers; variables of LoraLoom's own are left out, so that only the plan counts.
        tell: is told of every step.
        serve: the command that serves.

    Raises:
        InvalidEvaluation: the folder holds a complete result.
        EvaluationFailed: a server did not start or did not answer; what the ones before it gave is written.
        AdapterError: an adapter is refused.
        OSError: the folder cannot be written.
    """
    refuse_complete(out)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    clean = {name: value for name, value in environment.items() if not name.startswith(_OWN)}
    servers, known, measured = servers_of(plan.spec, plan.models), about(plan), Measured()
    with TemporaryDirectory(prefix=".work-", dir=out, ignore_cleanup_errors=True) as work:
        for number, server in enumerate(servers, 1):
            tell(f"[{number}/{len(servers)}] {server.name}: {', '.join(arm.label for arm in server.arms)}")
            start = _start(server, plan, Path(work), out, clean, serve)
            tell(f"      starting it takes a minute or more (its log: {start.log})")
            with serving(start) as url:
                measured += asyncio.run(_ask(url, server, plan, tell))
            result = result_of(plan, measured, known, complete=number == len(servers))
            write(result, plan, measured, out)
    return result


def _start(
    server: ServerPlan, plan: Plan, work: Path, out: Path, environment: Mapping[str, str], serve: Sequence[str]
) -> Start:
    """How to start a server, whose folder and store are made here."""
    folder = work / server.name
    folder.mkdir()
    server.fill(folder / "store")
    port = free_port()
    command = [*serve, *server.arguments(port, folder, vllm_arguments(plan.vllm, plan.template, folder))]
    return Start(command, port, folder, out / f"{server.name}.log", environment, plan.spec.start_timeout)


async def _ask(url: str, server: ServerPlan, plan: Plan, tell: Tell) -> Measured:
    async with asking(url, plan.spec.concurrency) as asker:
        rounds = await ask_rounds(
            asker, server.arms, plan.tasks, plan.spec.max_tokens, lambda text: tell(f"      {text}")
        )
        if plan.spec.speed_rounds:
            tell("      writing at a fixed length")
        return Measured(tuple(rounds), await time_writing(asker, server.arms, plan.tasks, plan.spec.speed_rounds))
