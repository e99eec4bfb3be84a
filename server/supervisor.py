"""The supervisor: a small process that owns the listening socket and keeps a server behind it.

vLLM's server exits when its engine dies, and nothing inside it can restart it. So the socket belongs to this process:
while there is no server, it answers 503 itself; when the server is ready, it stops to accept and the server, which
has inherited the socket, goes on. Connections that arrive in between wait in the socket's queue; none is refused.
"""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from loraloom.server import draining
from loraloom.server.errors import InvalidSettings
from loraloom.server.launch import Launch
from loraloom.server.settings import Handoff, Settings
from loraloom.server.unavailable import answering_unavailable


@dataclass(frozen=True)
class Pace:
    """How long the supervisor waits, in seconds.

    Attributes:
        window: at most `max_restarts` restarts happen within it.
        first_pause: before the first restart; each further one within the window waits twice as long.
        longest_pause: the bound of that.
        exit_grace: what a server gets to exit after its requests have drained.
    """

    window: float = 600.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    exit_grace: float = 20.0


def listen(host: str, port: int, patience: float = 60.0) -> socket.socket:
    """A listening socket that children may inherit.

    Args:
        patience: seconds that a client may leave what is sent to it in the kernel, where that can be said (Linux). Then
            its connection ends: a server that has given it up would keep it, with all that is unsent, until it leaves.

    Raises:
        InvalidSettings: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # the connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * patience))
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        hint = "stop what uses the port, or choose another with --port" if taken else "check --host and --port"
        raise InvalidSettings(f"cannot listen on {host}:{port} ({error.strerror}): {hint}") from error
    listening.listen(2048)
    listening.setblocking(False)  # shared with the server, which may take a connection that both were told of
    return listening


def address(listening: socket.socket) -> str:
    """The URL that reaches a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass
class Child:
    """A running server.

    Attributes:
        process: the server; it leads a process group of its own, with the engine's processes in it.
        ready: done when the server is about to accept; cancelled when it exits before.
        channel: to the server; it knows by its end that the supervisor is gone.
    """

    process: asyncio.subprocess.Process
    ready: asyncio.Future[None]
    channel: socket.socket

    def tell(self, word: bytes) -> None:
        """Say something to the server, if it still listens."""
        with contextlib.suppress(OSError):
            self.channel.send(word)

    async def stop(self, patience: float) -> None:
        """Ask the server to finish, then insist."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), patience)
        self.sweep()
        await self.process.wait()

    def sweep(self) -> None:
        """End whatever is left of the process group, such as an engine whose server was killed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Supervisor:
    """Starts a server, restarts it within bounds, and stops it.

    Attributes:
        listening: as `listen` makes it.
        output: where the server's own output goes; by default to this process's.
    """

    settings: Settings
    launch: Launch
    environment: Mapping[str, str]
    listening: socket.socket
    output: IO[bytes] | None = None
    pace: Pace = Pace()
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _restarts: deque[float] = field(default_factory=deque)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT.

        Returns:
            The exit status: 0 after a signal, 1 when the server does not start or dies too often.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        served = False
        while True:
            served = await self._serve_once() or served
            if self._stop.is_set():
                return 0
            if not served:
                say("the server did not start; its own output says why. `loraloom doctor` may help")
                return 1
            if not await self._pause_before_restart():
                return 0 if self._stop.is_set() else 1

    def stop(self) -> None:
        """Let `run` end, as a signal would."""
        self._stop.set()

    async def _serve_once(self) -> bool:
        """Run one server to its end; tell whether it was ever ready."""
        async with self._child() as child:
            async with answering_unavailable(self.listening):
                await _first_of(child.ready, child.process.wait(), self._stop.wait())
            served = child.ready.done() and not child.ready.cancelled()
            if served and not self._stop.is_set():
                say(f"ready on {address(self.listening)}")
                await _first_of(child.process.wait(), self._stop.wait())
            if self._stop.is_set():
                say("stopping: running requests may finish" if served else "stopping")
                child.tell(draining.WORD)
                async with answering_unavailable(self.listening):
                    await child.stop(self.pace.exit_grace + (self.settings.drain_timeout if served else 0))
            return served

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[Child]:
        ours, theirs = socket.socketpair()
        handoff = Handoff(self.settings, self.listening.fileno(), theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            *self.launch.command,
            env={**self.environment, **self.launch.environment, **handoff.environment()},
            pass_fds=(handoff.socket, handoff.control),
            start_new_session=True,
            stdout=self.output,
            stderr=self.output,
        )
        theirs.close()
        ours.setblocking(False)
        announcement = asyncio.ensure_future(_announced(ours))
        child = Child(process, announcement, ours)
        try:
            yield child
        finally:
            announcement.cancel()
            child.sweep()
            await process.wait()
            ours.close()

    async def _pause_before_restart(self) -> bool:
        """Wait before a restart; False when there were too many, or when told to stop."""
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > self.pace.window:
            self._restarts.popleft()
        if len(self._restarts) >= self.settings.max_restarts:
            say(f"the server died {len(self._restarts) + 1} times within {self.pace.window:g} s: giving up")
            return False
        pause = min(self.pace.longest_pause, self.pace.first_pause * 2 ** len(self._restarts))
        self._restarts.append(now)
        say(f"the server died; restarting it in {pause:g} s")
        async with answering_unavailable(self.listening):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
        return not self._stop.is_set()


def say(message: str) -> None:
    """Tell the person at the terminal."""
    print(f"loraloom: {message}", file=sys.stderr, flush=True)


async def _announced(channel: socket.socket) -> None:
    """Return when the server says that it is about to accept; cancelled when it goes away before."""
    if not await asyncio.get_running_loop().sock_recv(channel, 1):
        raise asyncio.CancelledError


async def _first_of(*awaitables: Awaitable[Any]) -> None:
    """Wait until the first is done; futures that are not ours to end are left alone."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, given in zip(tasks, awaitables, strict=True):
            if task is not given:
                task.cancel()
