"""Adapter files from a multipart upload: known names only, regular files only."""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from loraloom.server.errors import InvalidBody
from loraloom.server.routes.gated import first_problem

FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")
ARCHIVES = (".tar", ".tar.gz", ".tgz")
GZIP_MAGIC = b"\x1f\x8b"
MEMBERS = 1000
"""Files and folders that an archive may have."""

_LARGEST_READ = 2**20


class Publication(BaseModel, frozen=True, extra="forbid"):
    """How to publish.

    Attributes:
        name: the adapter's name.
        tag: a tag to move to the new version, besides `latest`.
        allow_noop: publish also an adapter that changes nothing.
    """

    name: str
    tag: str | None = None
    allow_noop: bool = False


async def receive_upload(request: Request, folder: Path, limit: int) -> Publication:
    """Write the files of a multipart request into an empty folder.

    Args:
        request: its body is the form.
        folder: where the files go.
        limit: bytes that an archive may unpack to.

    Raises:
        InvalidBody: no such form, unknown fields, file names that are not an adapter's, links in an archive.
    """
    try:
        async with request.form(max_files=len(FILES) + 1, max_fields=8) as form:
            publication = _publication(form)
            await run_in_threadpool(_write, form, folder, limit)
    except HTTPException as error:
        raise InvalidBody(f"the form cannot be read: {error.detail}") from error
    return publication


def _publication(form: FormData) -> Publication:
    fields = {key: value for key, value in form.multi_items() if not isinstance(value, UploadFile)}
    try:
        return Publication.model_validate(fields)
    except ValidationError as error:
        problem = first_problem(error.errors())
        raise InvalidBody(f"the form's fields are `name`, and at will `tag` and `allow_noop`; {problem}") from error


def _write(form: FormData, folder: Path, limit: int) -> None:
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not uploads:
        raise InvalidBody(f"no files: send {FILES[0]} and {FILES[1]}, or one archive with both")
    for upload in uploads:
        name = upload.filename or ""
        if name in FILES:
            _copy(upload.file, folder / name)
        elif name.endswith(ARCHIVES):
            _unpack(upload.file, folder, limit)
        else:
            raise InvalidBody(f"{name[:100]!r} is no file of an adapter: send {', '.join(FILES)}, or one .tar archive")


def _unpack(archive: IO[bytes], folder: Path, limit: int) -> None:
    """Take the known files out of an archive; anything but a regular file in it refuses the whole."""
    zipped = archive.read(2) == GZIP_MAGIC
    archive.seek(0)
    content = _Bounded(gzip.GzipFile(fileobj=archive) if zipped else archive, limit)
    try:
        with tarfile.open(fileobj=content, mode="r:") as members:
            for number, member in enumerate(members, start=1):
                if number > MEMBERS:
                    raise InvalidBody(f"the archive has more than {MEMBERS} members: send the adapter's files only")
                _take(members, member, folder)
    except (tarfile.TarError, RecursionError) as error:
        raise InvalidBody(f"the archive cannot be read: {error}") from error


class _Bounded:
    """The file that `tarfile` reads: no more of it than `limit` bytes, and no large part at once.

    How much is read or skipped, and where to, is what the archive says, and a small archive may unpack to terabytes.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._file = file
        self._limit = limit

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        if not 0 <= position <= self._limit:
            raise tarfile.ReadError(f"it unpacks to more than {self._limit} bytes, or says so")
        with _reading():
            return self._file.seek(position)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError("a header in it is too large")
        with _reading():
            return self._file.read(min(size, self._limit - self._file.tell()))


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what goes wrong with a damaged archive into an error of `tarfile`."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise tarfile.ReadError(str(error)) from error


def _take(members: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = Path(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise InvalidBody(f"the archive has an unsafe path: {member.name[:100]!r}")
    if member.isdir():
        return
    if not member.isreg() or member.issparse() or member.size < 0:
        raise InvalidBody(f"{member.name[:100]!r} in the archive is no plain file: send regular files, no links")
    content = members.extractfile(member)
    if path.name in FILES and content is not None:
        _copy(content, folder / path.name)


def _copy(source: IO[bytes], target: Path) -> None:
    if target.exists():
        raise InvalidBody(f"{target.name} is there twice")
    with target.open("xb") as file:
        shutil.copyfileobj(source, file)
