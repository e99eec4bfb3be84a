"""Reading archives from the network: every mutilation of one is refused or read, within its limits."""

import gzip
import io
import random
import tarfile
from typing import IO

import pytest

from loraloom.server.errors import InvalidBody
from loraloom.server.routes.archive import MEMBERS, unpack

LIMIT = 2**16
CONTENT = {"a.json": b"{}", "folder/b.bin": bytes(range(256)) * 8, "empty": b""}


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(raw: bytes, limit: int = LIMIT) -> list[tuple[str, bytes]]:
    taken = []

    def take(name: str, content: IO[bytes]) -> None:
        taken.append((name, content.read()))

    unpack(io.BytesIO(raw), limit, take)
    return taken


@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress], ids=["tar", "tar.gz"])
def test_files_come_by_their_names_without_folders(pack: type[bytes]) -> None:
    assert unpacked(pack(tar(CONTENT))) == [("a.json", b"{}"), ("b.bin", CONTENT["folder/b.bin"]), ("empty", b"")]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_and_long_names(format: int) -> None:
    buffer = io.BytesIO()
    name = "/".join(["folder"] * 20 + ["file"])
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        member = tarfile.TarInfo(name)
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    assert unpacked(buffer.getvalue()) == [("file", b"abc")]


def test_what_is_just_within_the_limit() -> None:
    raw = tar({"a": b"\0" * 1000})
    assert unpacked(raw, len(raw)) == [("a", b"\0" * 1000)]


@pytest.mark.parametrize("limit", [512, 1024, 1536, 2048])
def test_more_than_the_limit(limit: int) -> None:
    with pytest.raises(InvalidBody):
        unpacked(gzip.compress(tar({"a": b"\0" * 3000})), limit)


def test_members_up_to_a_number() -> None:
    assert len(unpacked(tar({str(n): b"" for n in range(MEMBERS - 1)}), 2**20)) == MEMBERS - 1
    with pytest.raises(InvalidBody, match="more than 1000 members"):
        unpacked(tar({str(n): b"" for n in range(MEMBERS)}), 2**20)


def test_a_sparse_file() -> None:
    """It may say that the same bytes are to be read over and over."""
    member = tarfile.TarInfo("a")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
    with pytest.raises(InvalidBody, match="regular files"):
        unpacked(member.tobuf(tarfile.GNU_FORMAT) + tar(CONTENT))


@pytest.mark.parametrize("zipped", [False, True], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("seed", range(40))
def test_no_mutilation_does_harm(seed: int, zipped: bool) -> None:
    """It ends, within the limit, and with no other error."""
    chance = random.Random(seed)
    raw = bytearray(gzip.compress(tar(CONTENT), mtime=0) if zipped else tar(CONTENT))
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(raw)) if zipped else chance.choice(range(0, len(raw), 512)) + chance.randrange(512)
        raw[place % len(raw)] = chance.choice((0, 0x80, 0xFF, chance.randrange(256)))
    if chance.random() < 0.3:
        del raw[chance.randrange(len(raw)) :]
    if not zipped:
        _mend_checksums(raw)
    try:
        taken = unpacked(bytes(raw))
    except InvalidBody:
        return
    assert sum(len(content) for _, content in taken) <= LIMIT


def _mend_checksums(raw: bytearray) -> None:
    """Let the headers be read, which a wrong checksum would prevent."""
    for start in range(0, len(raw) - 511, 512):
        if raw[start + 257 : start + 262] == b"ustar":
            raw[start + 148 : start + 156] = b" " * 8
            raw[start + 148 : start + 156] = b"%06o\0 " % sum(raw[start : start + 512])
