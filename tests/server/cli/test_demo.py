"""`loraloom demo`, without its engine: the questions, the table, and how to call the server."""

import ast
import json
import shlex
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.demo.catalog import DemoAdapter, demo_adapters
from loraloom.server.cli.demo import NAME, Row, ask, calls, questions, table


class Echo(BaseHTTPRequestHandler):
    """Answers a chat with the model's name and the last message, as OpenAI's servers shape it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = f" {asked['model']}: {asked['messages'][-1]['content']}\n"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        ).encode()
        self.send_response(200 if asked["temperature"] == 0 else 400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def echo() -> Iterator[str]:
    """The URL of a server that echoes."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_one_question_to_the_base_and_one_to_each_adapter() -> None:
    adapters = [
        DemoAdapter("date", Path("x"), "dates", (("May 1st 2020", "2020-05-01"), ("never", "asked"))),
        DemoAdapter("number", Path("y"), "numbers", (("7", "seven"),)),
    ]
    plain, *rest = questions(adapters)
    assert (plain.model, plain.expected) == (NAME, "Paris")
    assert rest == [Row("date", "May 1st 2020", "2020-05-01"), Row("number", "7", "seven")]


def test_the_demos_own_adapters_can_be_asked() -> None:
    rows = questions(demo_adapters())
    assert len(rows) >= 5
    assert all(row.prompt and row.expected and not row.answer for row in rows)
    assert len({row.model for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("model", "answer", "right"),
    [
        (NAME, "The capital of France is Paris.", True),
        (NAME, "It is Rome.", False),
        ("date", "Paris", True),
        ("date", "Paris.", False),
    ],
)
def test_what_counts_as_right(model: str, answer: str, right: bool) -> None:
    assert Row(model, "?", "Paris", answer).right == right


async def test_asking(echo: str) -> None:
    rows = [Row("date", f"day {number}", "?") for number in range(9)]
    answered = await ask(echo, rows)
    assert [(row.prompt, row.answer) for row in answered] == [(row.prompt, f"date: {row.prompt}") for row in rows]


def test_the_table() -> None:
    rows = [
        Row(NAME, "What is the capital of France?", "Paris", "Paris."),
        Row("json", "line one\nline two", '{"a": 1}', "x" * 50),
    ]
    assert table(rows).splitlines() == [
        "",
        "request                        | adapter | answer                                   | expected |  ",
        "-------------------------------+---------+------------------------------------------+----------+--",
        "What is the capital of France? | (base)  | Paris.                                   | Paris    | ✓",
        f'line one⏎line two              | json    | {"x" * 39}… | {{"a": 1}} | ✗',
    ]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_the_curl_command_says_what_was_asked(prompt: str) -> None:
    text = calls("http://127.0.0.1:8000", Row("date", prompt, "?"))
    command = text[text.index("curl") : text.index("\n\n  from openai")]
    words = shlex.split(command)
    assert words[:2] == ["curl", "http://127.0.0.1:8000/v1/chat/completions"]
    body = json.loads(words[words.index("-d") + 1])
    assert body == {"model": "date", "temperature": 0, "messages": [{"role": "user", "content": prompt}]}


@given(st.text(st.characters(codec="utf-8")))
def test_the_python_code_says_what_was_asked(prompt: str) -> None:
    text = calls("http://127.0.0.1:8000", Row("date", prompt, "?"))
    code = text[text.index("  from openai") : text.index("\n\n  curl http://127.0.0.1:8000/v1/models")]
    tree = ast.parse("\n".join(line[2:] for line in code.split("\n")))
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert {"http://127.0.0.1:8000/v1", "date@1", prompt} <= set(constants)
