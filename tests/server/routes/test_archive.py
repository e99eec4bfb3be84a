"""Reading archives from the network: every mutilation of one is refused or read, within its limits."""

import gzip
import io
import random
import tarfile
from contextlib import suppress
from typing import IO

import pytest

from loraloom.server.errors import InvalidBody
from loraloom.server.routes.archive import MEMBERS, unpack

LIMIT = 2**16
LETTERS = bytes(random.Random(0).choices(range(64), k=LIMIT // 2))
CONTENT = {"a.json": b"{}", "folder/b.bin": LETTERS, "empty": b""}


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


class Watched(io.BytesIO):
    """A file that notes how far and how much at a time is read, whatever comes of it."""

    furthest = 0
    largest = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.furthest = max(self.furthest, offset)
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        self.largest = max(self.largest, len(self.getbuffer()) if size is None or size < 0 else size)
        return super().read(size)


def unpacked(raw: bytes, limit: int = LIMIT) -> list[tuple[str, bytes]]:
    """The files of an archive, after a look at whether the limits were kept, also where it was refused."""
    taken: list[tuple[str, bytes]] = []
    passed: list[int] = []
    file = Watched(raw)

    def take(name: str, content: IO[bytes]) -> None:
        pieces = []
        while piece := content.read(512):
            pieces.append(piece)
            passed.append(len(piece))
        taken.append((name, b"".join(pieces)))

    try:
        unpack(file, limit, take)
    finally:
        assert sum(passed) <= limit
        if raw[:2] != b"\x1f\x8b":
            assert file.furthest <= limit
            assert file.largest <= 2**20
    return taken


@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress], ids=["tar", "tar.gz"])
def test_files_come_by_their_names_without_folders(pack: type[bytes]) -> None:
    assert unpacked(pack(tar(CONTENT))) == [("a.json", b"{}"), ("b.bin", LETTERS), ("empty", b"")]


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


@pytest.mark.parametrize("zipped", [False, True], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("size", [-512, 2**20, 2**40])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE])
def test_a_header_that_says_more_than_there_is(kind: bytes, size: int, zipped: bool) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.size = kind, size
    raw = member.tobuf(tarfile.GNU_FORMAT) + tar(CONTENT)
    with pytest.raises(InvalidBody):
        unpacked(gzip.compress(raw) if zipped else raw)


def test_a_file_that_nobody_wants_is_skipped_within_the_limit() -> None:
    member = tarfile.TarInfo("unwanted")
    member.size = 2**40
    file = Watched(member.tobuf(tarfile.GNU_FORMAT) + tar(CONTENT))
    with pytest.raises(InvalidBody, match="more than 65536 bytes"):
        unpack(file, LIMIT, lambda name, content: None)
    assert file.furthest <= LIMIT


def test_a_file_of_less_than_nothing() -> None:
    """Its end lies before its beginning, so that it would be read for ever."""
    member = tarfile.TarInfo("a")
    member.size = -512
    with pytest.raises(InvalidBody, match="regular files"):
        unpacked(member.tobuf(tarfile.GNU_FORMAT) + tar(CONTENT))


def test_members_up_to_a_number() -> None:
    assert len(unpacked(tar({str(n): b"" for n in range(MEMBERS - 1)}), 2**20)) == MEMBERS - 1
    with pytest.raises(InvalidBody, match="more than 1000 members"):
        unpacked(tar({str(n): b"" for n in range(MEMBERS)}), 2**20)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("fill", [b"\xff" * 64, b"\0" * 64, b"\x06" * 200], ids=["ones", "zeros", "sixes"])
@pytest.mark.parametrize("padding", [0, 30_000])
def test_damage_that_only_gzip_can_tell(place: float, fill: bytes, padding: int) -> None:
    """Its checksum is at the very end, after everything that is of interest."""
    raw = bytearray(gzip.compress(tar(CONTENT) + b"\0" * padding))
    start = int(place * len(raw))
    raw[start : start + len(fill)] = fill
    with pytest.raises(InvalidBody):
        unpacked(bytes(raw), 2 * LIMIT)
    with pytest.raises(InvalidBody):
        unpack(io.BytesIO(raw), 2 * LIMIT, lambda name, content: None)


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
    with suppress(InvalidBody):
        unpacked(bytes(raw))
    with suppress(InvalidBody):
        unpack(io.BytesIO(raw), LIMIT, lambda name, content: None)


def _mend_checksums(raw: bytearray) -> None:
    """Let the headers be read, which a wrong checksum would prevent."""
    for start in range(0, len(raw) - 511, 512):
        if raw[start + 257 : start + 262] == b"ustar":
            raw[start + 148 : start + 156] = b" " * 8
            raw[start + 148 : start + 156] = b"%06o\0 " % sum(raw[start : start + 512])


def test_archives_after_each_other_share_one_limit() -> None:
    raw = tar(CONTENT)
    first = unpack(io.BytesIO(raw), LIMIT, lambda name, content: None)
    assert first == len(raw)
    both = unpack(io.BytesIO(gzip.compress(raw)), 2 * first, lambda name, content: None, first)
    assert both == 2 * first
    with pytest.raises(InvalidBody, match=f"more than {2 * first - 1} bytes when unpacked, with those before it"):
        unpack(io.BytesIO(raw), 2 * first - 1, lambda name, content: None, first)
