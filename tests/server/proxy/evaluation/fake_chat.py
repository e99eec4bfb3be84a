"""`python -m tests.server.proxy.evaluation.fake_chat MODEL …`: takes what `loraloom serve` takes, and has no model.

It answers the questions of `described.asked`: the base never, an adapter of the large model always, one of the small
model every second, a steered model two of three. It prints its arguments and every request, and ends at once when the
variable FAKE_ENDS has a word that is among its arguments.
"""

import argparse
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_QUESTION = re.compile(r"(\w+) test (\d+)")


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The arguments, those of vLLM in `vllm`."""
    at = arguments.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for flag in ("--served-name", "--port", "--adapters", "--cache", "--jobs", "--proxy-small", "--proxy-expert"):
        parser.add_argument(flag)
    options = parser.parse_args(arguments[:at])
    options.vllm = arguments[at + 1 :]
    return options


def answer(options: argparse.Namespace, body: dict[str, Any]) -> dict[str, Any] | None:
    """The reply to a chat completion, or None where there is no such model."""
    name, _, alpha = body["model"].partition("~")
    known = name == options.served_name or (Path(options.adapters, "names").is_dir() and name.startswith("tuned/"))
    if not known or (alpha and not options.proxy_small):
        return None
    task, number = _QUESTION.fullmatch(body["messages"][-1]["content"]).groups()  # type: ignore[union-attr]
    text = f" {task} answer {number}\n" if _right(options, name, alpha, int(number)) else "no idea"
    tokens = body["max_tokens"] if body.get("ignore_eos") else min(len(text), body["max_tokens"])
    return {
        "choices": [{"message": {"content": text}, "finish_reason": "stop" if tokens == len(text) else "length"}],
        "usage": {"prompt_tokens": 10 * len(body["messages"]), "completion_tokens": tokens},
    }


def _right(options: argparse.Namespace, name: str, alpha: str, number: int) -> bool:
    if alpha:
        return number % 3 != 0
    if name == options.served_name:
        return options.model.endswith("tuned-model")
    return options.model.endswith("large-model") or number % 2 == 0


def handler(options: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    """Answers /ready and chat completions."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._reply(200 if self.path == "/ready" else 404, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            os.write(1, json.dumps(body).encode() + b"\n")  # whole lines, whichever thread
            reply = answer(options, body)
            self._reply(404 if reply is None else 200, reply or {"error": {"message": f"no model {body['model']}"}})

        def _reply(self, status: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True


def main() -> None:
    print(json.dumps({"arguments": sys.argv[1:], "pid": os.getpid()}), flush=True)
    if os.environ.get("FAKE_ENDS") in sys.argv:
        sys.exit("it does not fit into memory")
    options = parsed(sys.argv[1:])
    server = Server(("127.0.0.1", int(options.port)), handler(options))
    threading.Thread(target=server.serve_forever, args=(0.01,)).run()


if __name__ == "__main__":
    main()
