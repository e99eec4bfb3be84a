"""Archives from the network: regular files only, and no more bytes than are allowed."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from loraloom.server.errors import InvalidBody

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MEMBERS = 1000
"""Files and folders that an archive may have."""

_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_READ = 2**20


def unpack(archive: IO[bytes], limit: int, take: Callable[[str, IO[bytes]], None], before: int = 0) -> int:
    """Hand every file in a .tar or .tar.gz archive to `take`, by its name without folders.

    Args:
        archive: the archive, at its beginning.
        limit: bytes that it may unpack to, with all archives before it.
        take: called with a name and the content, in the archive's order.
        before: bytes that those before it have unpacked to.

    Returns:
        The bytes that all have unpacked to by now.

    Raises:
        InvalidBody: it is damaged or too large, or has a link, a device or an unsafe path; `take` may have been called.
    """
    zipped = archive.read(2) == _GZIP_MAGIC
    archive.seek(0)
    bounded = _Bounded(gzip.GzipFile(fileobj=archive, mode="rb") if zipped else archive, limit, before)
    try:
        with tarfile.open(fileobj=bounded, mode="r:") as members:
            for number, member in enumerate(members, start=1):
                _check(member, number)
                content = members.extractfile(member)
                if content is not None:
                    take(Path(member.name).name, content)
        bounded.finish()
        return before + bounded.tell()
    except (tarfile.TarError, RecursionError) as error:
        raise InvalidBody(f"the archive cannot be read: {error}") from error


def _check(member: tarfile.TarInfo, number: int) -> None:
    path = Path(member.name)
    if number > MEMBERS:
        raise InvalidBody(f"the archive has more than {MEMBERS} members: send the adapter's files only")
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise InvalidBody(f"the archive has an unsafe path: {member.name[:100]!r}")
    # A sparse file says where its parts lie, and can have the same bytes read again and again.
    if member.size < 0 or member.issparse() or not (member.isreg() or member.isdir()):
        raise InvalidBody(f"{member.name[:100]!r} in the archive is a link or a device: send regular files")


class _Bounded(io.BufferedIOBase):
    """The file that `tarfile` reads: with those before it no more than `limit` bytes, and no large part at once.

    How much is read and where to it is skipped is what the archive says, and a small one may unpack to terabytes.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int, before: int) -> None:
        self._file = file
        self._limit = limit
        self._before = before

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        assert whence == io.SEEK_SET, "tarfile seeks from the beginning"
        self._check_end(offset)
        try:
            return self._file.seek(offset)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(error) from error

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_READ:
            raise InvalidBody("the archive has a header that is too large")
        try:
            content = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(error) from error
        self._check_end(self.tell())
        return content

    def finish(self) -> None:
        """Read to the end, where gzip compares its checksum; the members' own end comes before."""
        while self.read(_LARGEST_READ):
            pass

    def _check_end(self, position: int) -> None:
        if not 0 <= position <= self._limit - self._before:
            others = ", with those before it" if self._before else ""
            raise InvalidBody(f"the archive has more than {self._limit} bytes when unpacked{others}")


def _damaged(error: Exception) -> InvalidBody:
    return InvalidBody(f"the archive is damaged: {error}")
