"""Adapter files from a multipart upload: known names only, regular files only."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from loraloom.server.errors import InvalidBody, ServerError
from loraloom.server.routes.archive import SUFFIXES, unpack
from loraloom.server.routes.gated import first_problem
from loraloom.server.routes.publication import Publication

FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")


@dataclass(frozen=True)
class Upload:
    """A form that has come, with nothing of it unpacked.

    Attributes:
        publication: what its fields say.
    """

    publication: Publication
    _form: FormData

    def write(self, folder: Path, limit: int) -> None:
        """Write the form's files into an empty folder; blocks.

        Args:
            folder: where the files go.
            limit: bytes that all its archives together may unpack to.

        Raises:
            InvalidBody: no files, file names that are not an adapter's, links in an archive, or too much in them.
        """
        _write(self._form, folder, limit)


@asynccontextmanager
async def received_upload(request: Request) -> AsyncIterator[Upload]:
    """The multipart form in a request's body, which stays readable for the length of the block.

    Raises:
        InvalidBody: no such form, or unknown fields.
    """
    form = await _form(request)
    try:
        yield Upload(_publication(form), form)
    finally:
        await form.close()


async def _form(request: Request) -> FormData:
    try:
        return await request.form(max_files=len(FILES) + 1, max_fields=8)
    except HTTPException as error:
        raise InvalidBody(f"the form cannot be read: {error.detail}") from error
    except ServerError:
        raise
    except ValueError as error:  # Python's word on a `charset` that is no text, or has a NUL in its name
        raise InvalidBody(f"the form cannot be read: {error}. Leave `charset` out of its `content-type`") from error


def _publication(form: FormData) -> Publication:
    fields = {key: value for key, value in form.multi_items() if not isinstance(value, UploadFile)}
    try:
        return Publication.model_validate(fields)
    except ValidationError as error:
        problem = first_problem(error.errors())
        raise InvalidBody(
            "the form's fields are `name`, and at will `tag`, `allow_noop`, `base`, `rank`, `energy` and `max_kl`; "
            f"{problem}"
        ) from error


def _write(form: FormData, folder: Path, limit: int) -> None:
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not uploads:
        raise InvalidBody(f"no files: send {FILES[0]} and {FILES[1]}, or one archive with both")

    def keep(name: str, content: IO[bytes]) -> None:
        if name in FILES:
            _copy(content, folder / name)

    unpacked = 0
    for upload in uploads:
        name = upload.filename or ""
        if name in FILES:
            keep(name, upload.file)
        elif name.endswith(SUFFIXES):
            unpacked = unpack(upload.file, limit, keep, unpacked)
        else:
            raise InvalidBody(f"{name[:100]!r} is no file of an adapter: send {', '.join(FILES)}, or one .tar archive")


def _copy(source: IO[bytes], target: Path) -> None:
    if target.exists():
        raise InvalidBody(f"{target.name} is there twice")
    with target.open("xb") as file:
        shutil.copyfileobj(source, file)
