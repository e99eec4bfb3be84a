"""What every route of ours shares: the gate's state, and errors in OpenAI's shape."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from loraloom.adapters.errors import AdapterError
from loraloom.compose.errors import ComposeError
from loraloom.server.access.view import View
from loraloom.server.errors import Disconnected, InvalidBody, ServerError
from loraloom.server.gate.exchange import ACCOUNT
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.statuses import error_body, error_headers, status_of

log = logging.getLogger("vllm.loraloom.routes")


class GatedRoute(APIRoute):
    """A route whose errors are answered from the table of statuses."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors turned into answers."""
        handler = super().get_route_handler()

        async def answering(request: Request) -> Response:
            try:
                return await handler(request)
            except Disconnected:
                raise
            except (AdapterError, ComposeError, ServerError) as error:
                return _answer(error)
            except RequestValidationError as error:
                return _answer(InvalidBody(first_problem(error.errors(), skip=1)))
            except HTTPException as error:  # FastAPI's word for whatever happened while it read the body
                cause = error.__cause__
                return _answer(cause if isinstance(cause, ServerError) else InvalidBody(error.detail))

        return answering


def _answer(error: Exception) -> Response:
    status = status_of(error)
    if status.http >= 500:
        log.warning("%s: %s", status.code, error)
    return JSONResponse(error_body(error, status), status.http, error_headers(error, status))


def first_problem(problems: Sequence[Any], skip: int = 0) -> str:
    """The first of pydantic's findings, as "field: what is wrong".

    Args:
        problems: what `errors()` of a validation error returns.
        skip: how many parts of its location are not the client's.
    """
    problem = problems[0]
    where = ".".join(str(part) for part in problem["loc"][skip:])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


async def _gate(request: Request) -> Gate:
    """Not in a thread: those may all be taken."""
    gate: Gate = request.app.state.loraloom
    return gate


async def _view(request: Request) -> View:
    return (await _gate(request)).view(request.scope[ACCOUNT])


Gated = Annotated[Gate, Depends(_gate)]
"""What the server has."""
Seen = Annotated[View, Depends(_view)]
"""What whoever asks sees of the store, and may do to it."""
