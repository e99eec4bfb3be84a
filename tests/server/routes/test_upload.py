"""Uploads of every kind: good ones are published once, bad ones leave the store as it is."""

import bz2
import gzip
import io
import json
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save

from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE
from loraloom.adapters.store import Store
from loraloom.server.gate.work import Work
from loraloom.server.routes.archive import unpack
from tests.adapters.small_adapters import MODULE, small_adapter
from tests.server.conftest import BASE, SERVED, BuildGate, Publish
from tests.server.replies import error_of, told
from tests.server.routes.conftest import Serve, check_whole, unchanged

ADAPTERS = "/v1/adapters"
Files = dict[str, bytes]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The two files of an adapter, by their names."""
    folder = small_adapter(tmp_path / "uploaded", seed=77)
    return {name: (folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}


def parts(files: Files) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, content)) for name, content in files.items()]


def tar(files: Files, edit: Callable[[tarfile.TarInfo], None] = lambda member: None) -> bytes:
    """An archive; `edit` changes each member's header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            edit(member)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return buffer.getvalue()


def archived(content: bytes, name: str = "adapter.tar") -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (name, content))]


async def upload(client: httpx.AsyncClient, files: Any, **fields: str) -> httpx.Response:
    return await client.post(ADAPTERS, data={"name": "sql", **fields}, files=files)


async def test_two_files(client: httpx.AsyncClient, store: Store, files: Files) -> None:
    reply = await upload(client, parts(files), name="org/sql", tag="stable")
    assert reply.status_code == 201
    assert (reply.json()["model"], reply.json()["base"], reply.json()["by"]) == (
        "org/sql@1",
        SERVED.digest,
        "anonymous",
    )
    assert store.tags("org/sql") == {"latest": 1, "stable": 1}
    check_whole(store)
    again = await upload(client, parts(files), name="org/sql")
    assert (again.status_code, again.json()["version"]) == (200, 1)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.tar", tar), ("a.tar.gz", lambda files: gzip.compress(tar(files))), ("a.tgz", lambda f: gzip.compress(tar(f)))],
)
@pytest.mark.parametrize("folder", ["", "./", "checkpoint-9/adapter/"])
async def test_an_archive(
    client: httpx.AsyncClient, store: Store, files: Files, name: str, pack: Callable[[Files], bytes], folder: str
) -> None:
    packed = pack({f"{folder}{file}": content for file, content in {**files, "optimizer.pt": b"x"}.items()})
    reply = await upload(client, archived(packed, name))
    assert reply.status_code == 201
    assert (await upload(client, parts(files))).json()["digest"] == reply.json()["digest"]
    check_whole(store)


async def test_the_base_may_be_said(client: httpx.AsyncClient, store: Store, files: Files) -> None:
    assert (await upload(client, parts(files), base=BASE)).json()["base_name"] == BASE
    with unchanged(store):
        reply = await upload(client, parts(files), base="other")
    assert told(reply) == (400, "invalid_body")
    assert (error_of(reply)["param"], error_of(reply)["message"]) == (
        "base",
        "this server serves adapters of 'tiny', and not of 'other'",
    )


async def test_a_model_card_may_come_too(client: httpx.AsyncClient, files: Files) -> None:
    assert (await upload(client, parts({**files, "README.md": b"# SQL"}))).status_code == 201


def _header(raw: bytes) -> bytes:
    return raw[: 8 + int.from_bytes(raw[:8], "little")]


def with_weights(files: Files, weights: bytes) -> Files:
    return {**files, WEIGHTS_FILE: weights}


def holding(value: float) -> Callable[[Files], Files]:
    """The adapter with one number of B replaced."""

    def replace(files: Files) -> Files:
        tensors = {f"{MODULE}.lora_{factor}.weight": np.ones(shape, np.float32) for factor, shape in SHAPES.items()}
        tensors[f"{MODULE}.lora_B.weight"][0, 0] = value
        return with_weights(files, save(tensors))

    return replace


SHAPES = {"A": (2, 8), "B": (8, 2)}


def configured(**fields: Any) -> Callable[[Files], Files]:
    return lambda files: {**files, CONFIG_FILE: json.dumps({**json.loads(files[CONFIG_FILE]), **fields}).encode()}


BAD_ADAPTERS: dict[str, Callable[[Files], Files]] = {
    "a pickle": lambda files: with_weights(files, b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02R."),
    "truncated weights": lambda files: with_weights(files, files[WEIGHTS_FILE][:-8]),
    "a truncated header": lambda files: with_weights(files, files[WEIGHTS_FILE][:40]),
    "a header only": lambda files: with_weights(files, _header(files[WEIGHTS_FILE])),
    "more bytes than tensors": lambda files: with_weights(files, files[WEIGHTS_FILE] + b"\0" * 8),
    "empty weights": lambda files: with_weights(files, b""),
    "a huge header": lambda files: with_weights(files, (2**62).to_bytes(8, "little") + b"{}"),
    "NaN": holding(float("nan")),
    "infinity": holding(float("-inf")),
    "no configuration": lambda files: {WEIGHTS_FILE: files[WEIGHTS_FILE]},
    "no weights": lambda files: {CONFIG_FILE: files[CONFIG_FILE]},
    "a configuration that is no JSON": lambda files: {**files, CONFIG_FILE: b"r: 8"},
    "prompt tuning": configured(peft_type="PROMPT_TUNING"),
    "an unknown kind": configured(peft_type="NEWEST"),
    "another rank than the tensors": configured(r=4),
    "a change of nothing": lambda files: with_weights(
        files, save({f"{MODULE}.lora_{f}.weight": np.zeros(shape, np.float32) for f, shape in SHAPES.items()})
    ),
}


@pytest.mark.parametrize("how", ["files", "archive"])
@pytest.mark.parametrize("what", BAD_ADAPTERS)
async def test_an_adapter_that_is_refused(
    client: httpx.AsyncClient, store: Store, publish: Publish, files: Files, what: str, how: str
) -> None:
    publish("sql", tag="stable")
    bad = BAD_ADAPTERS[what](files)
    with unchanged(store):
        reply = await upload(client, parts(bad) if how == "files" else archived(tar(bad)))
    assert told(reply) == (400, "invalid_adapter")


def renamed(to: str) -> Callable[[Files], bytes]:
    """The archive with one more file of that name."""
    return lambda files: tar({**files, to: b"x"})


def typed(kind: bytes, link: str = "") -> Callable[[Files], bytes]:
    """The archive with the weights' member made something else than a file."""

    def edit(member: tarfile.TarInfo) -> None:
        if member.name == WEIGHTS_FILE:
            member.type, member.linkname, member.size = kind, link, 0

    return lambda files: tar(files, edit)


def sized(size: int) -> Callable[[Files], bytes]:
    """The archive with a first member that claims a size."""
    member = tarfile.TarInfo("large")
    member.size = size
    return lambda files: member.tobuf(tarfile.GNU_FORMAT) + tar(files)


def extended(kind: bytes, size: int) -> bytes:
    """A header that is said to go on for so many bytes."""
    member = tarfile.TarInfo("long")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


BAD_ARCHIVES: dict[str, Callable[[Files], bytes]] = {
    "an absolute path": renamed("/etc/passwd"),
    "a path up": renamed("../adapter_config.json"),
    "a path up in the middle": renamed("a/../../adapter_config.json"),
    "a NUL": lambda files: _pax_name("adapter\0.json") + tar(files),
    "a symlink": typed(tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": typed(tarfile.LNKTYPE, CONFIG_FILE),
    "a device": typed(tarfile.CHRTYPE),
    "a block device": typed(tarfile.BLKTYPE),
    "a pipe": typed(tarfile.FIFOTYPE),
    "an unknown type": typed(b"Z"),
    "the same file twice": lambda files: tar({**files, f"other/{CONFIG_FILE}": b"{}"}),
    "no archive": lambda files: b"these are no members" * 100,
    "nothing": lambda files: b"",
    "half an archive": lambda files: tar(files)[:900],
    "a pickle": lambda files: b"\x80\x04\x95" + b"\0" * 600,
    "gzip of no archive": lambda files: gzip.compress(b"x" * 1000),
    "half of gzip": lambda files: gzip.compress(tar(files))[:-200],
    "damaged gzip": lambda files: gzip.compress(tar(files))[:200] + b"\xff" * 200,
    "bzip2": lambda files: bz2.compress(tar(files)),
    "a size below zero": sized(-512),
    "a size beyond the limit": sized(2**40),
    "a long name beyond the limit": lambda files: extended(tarfile.GNUTYPE_LONGNAME, 2**33) + tar(files),
    "a long name of less than nothing": lambda files: extended(tarfile.GNUTYPE_LONGNAME, -512) + tar(files),
    "an extended header beyond the limit": lambda files: extended(tarfile.XHDTYPE, 2**33) + tar(files),
    "headers upon headers": lambda files: extended(tarfile.XHDTYPE, 0) * 5000 + tar(files),
    "too many members": lambda files: tar({f"{number}": b"" for number in range(1001)} | files),
}


def _pax_name(name: str) -> bytes:
    member = tarfile.TarInfo("x")
    member.pax_headers = {"path": name}
    return member.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("what", BAD_ARCHIVES)
async def test_an_archive_that_is_refused(serve: Serve, store: Store, files: Files, what: str) -> None:
    client = serve(max_upload_bytes=2**24)
    with unchanged(store):
        reply = await upload(client, archived(BAD_ARCHIVES[what](files)))
    assert reply.status_code == 400
    assert error_of(reply)["code"] in ("invalid_body", "invalid_adapter")
    assert store.names() == []


async def test_a_small_archive_that_unpacks_to_more_than_an_upload_may_have(
    serve: Serve, store: Store, files: Files
) -> None:
    bomb = gzip.compress(tar({"zeros": b"\0" * 2**22, **files}))
    limit = 2**20
    assert len(bomb) < limit / 10
    with unchanged(store):
        reply = await upload(serve(max_upload_bytes=limit), archived(bomb, "a.tar.gz"))
    assert told(reply) == (400, "invalid_body")
    assert "1048576 bytes" in error_of(reply)["message"]


async def test_archives_that_together_unpack_to_more_than_an_upload_may_have(
    serve: Serve, store: Store, files: Files
) -> None:
    zeros, whole = (gzip.compress(tar(each)) for each in ({"zeros": b"\0" * 2**20}, files))
    archives = [*archived(zeros, "a.tgz"), *archived(zeros, "b.tgz"), *archived(whole, "c.tgz")]
    limit = 2**21
    with unchanged(store):
        reply = await upload(serve(max_upload_bytes=limit), archives)
    assert told(reply) == (400, "invalid_body")
    assert "2097152 bytes when unpacked, with those before it" in error_of(reply)["message"]
    assert (await upload(serve(max_upload_bytes=2 * limit), archives)).status_code == 201


async def test_nothing_is_unpacked_before_it_may_be_published_and_has_a_place(
    serve: Serve, build_gate: BuildGate
) -> None:
    unreadable = archived(b"these are no members" * 100)
    reply = await upload(serve(), unreadable, name=BASE)
    assert (told(reply), error_of(reply)["param"]) == ((400, "invalid_body"), "name")
    full = replace(build_gate(), work=Work(threads=1, waiting=-1))
    assert told(await upload(serve(full), unreadable)) == (503, "offline_busy")


async def test_an_upload_is_unpacked_where_it_is_published(
    client: httpx.AsyncClient, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def noting(*given: Any) -> int:
        threads.append(threading.current_thread().name)
        return unpack(*given)

    monkeypatch.setattr("loraloom.server.routes.upload.unpack", noting)
    assert (await upload(client, archived(tar(files)))).status_code == 201
    assert [name.rpartition("_")[0] for name in threads] == ["loraloom-work"]


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.bin",
        "../adapter_config.json",
        "/etc/passwd",
        "x/adapter_config.json",
        "adapter.zip",
        "model.tar.xz",
    ],
)
async def test_files_of_other_names(client: httpx.AsyncClient, store: Store, files: Files, name: str) -> None:
    with unchanged(store):
        reply = await upload(client, parts({**files, name: b"x"}))
    assert told(reply) == (400, "invalid_body")
    assert WEIGHTS_FILE in error_of(reply)["message"]


async def test_the_same_file_twice(client: httpx.AsyncClient, store: Store, files: Files) -> None:
    with unchanged(store):
        reply = await upload(client, [*parts(files), ("more", (CONFIG_FILE, b"{}"))])
    assert told(reply) == (400, "invalid_body")
    assert "twice" in error_of(reply)["message"]


async def test_too_many_files(client: httpx.AsyncClient, store: Store, files: Files) -> None:
    with unchanged(store):
        reply = await upload(client, [("more", (CONFIG_FILE, b"{}"))] * 50)
    assert told(reply) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "name"),
        ({"name": "sql", "more": "1"}, "more"),
        ({"name": "sql", "allow_noop": "perhaps"}, "allow_noop"),
        ({"name": "sql", CONFIG_FILE: "{}"}, CONFIG_FILE),
    ],
)
async def test_fields_that_do_not_fit(
    client: httpx.AsyncClient, store: Store, files: Files, fields: dict[str, str], expected: str
) -> None:
    with unchanged(store):
        reply = await client.post(ADAPTERS, data=fields, files=parts(files))
    assert told(reply) == (400, "invalid_body")
    assert expected in error_of(reply)["message"]
    assert "errors.pydantic.dev" not in error_of(reply)["message"]


async def test_no_files(client: httpx.AsyncClient, store: Store) -> None:
    with unchanged(store):
        reply = await client.post(ADAPTERS, files={"name": (None, b"sql")})
    assert told(reply) == (400, "invalid_body")
    assert "no files" in error_of(reply)["message"]


@pytest.mark.parametrize(("name", "tag"), [("../x", "stable"), ("a/tags", "stable"), ("sql", "7"), ("sql", "a b")])
async def test_names_and_tags_that_do_not_follow_the_grammar(
    client: httpx.AsyncClient, store: Store, files: Files, name: str, tag: str
) -> None:
    with unchanged(store):
        reply = await upload(client, parts(files), name=name, tag=tag)
    assert told(reply) == (400, "invalid_model")


FORM = "multipart/form-data; boundary=edge"


@pytest.mark.parametrize(
    ("media", "content"),
    [
        ("multipart/form-data", b"--edge\r\n"),
        (FORM, b""),
        (FORM, b"no edge"),
        (FORM, b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge--\r\n"),
        (FORM, b"--edge\r\n\xff\xfe: \x00\r\n\r\n"),
        (FORM, b'--edge\r\nContent-Disposition: form-data; name="name"\r\n\r\nsq'),
        (FORM, b"--edge\r\n" * 3),
        (FORM, b'--edge\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + b"x" * 2**21 + b"\r\n--edge--\r\n"),
    ],
)
async def test_a_broken_form(client: httpx.AsyncClient, store: Store, media: str, content: bytes) -> None:
    with unchanged(store):
        reply = await client.post(ADAPTERS, content=content, headers={"content-type": media})
    assert told(reply) == (400, "invalid_body")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "in chunks"])
async def test_an_upload_over_the_limit(serve: Serve, store: Store, files: Files, declared: bool) -> None:
    client = serve(max_upload_bytes=2**21)
    request = client.build_request("POST", ADAPTERS, data={"name": "sql"}, files=parts({**files, "a": b"\0" * 2**22}))
    raw = b"".join([part async for part in request.stream])  # type: ignore[union-attr]

    async def chunks() -> Any:
        for start in range(0, len(raw), 2**16):
            yield raw[start : start + 2**16]

    headers = {"content-type": request.headers["content-type"]}
    with unchanged(store):
        reply = await client.post(ADAPTERS, content=raw if declared else chunks(), headers=headers)
    assert told(reply) == (413, "body_too_large")


async def test_an_adapter_that_changes_nothing_on_purpose(client: httpx.AsyncClient, files: Files) -> None:
    noop = BAD_ADAPTERS["a change of nothing"](files)
    assert (await upload(client, parts(noop), allow_noop="true")).status_code == 201


def test_the_zeros_are_of_the_adapters_shapes(files: Files, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(files[WEIGHTS_FILE])
    shapes = {name: tensor.shape for name, tensor in load_file(tmp_path / "weights").items()}
    assert shapes == {f"{MODULE}.lora_{factor}.weight": shape for factor, shape in SHAPES.items()}


@pytest.mark.parametrize("fields", [{"peft_type": "IA3"}, {"use_dora": True}])
async def test_a_server_that_does_not_convert(serve: Serve, store: Store, files: Files, fields: dict[str, Any]) -> None:
    with unchanged(store):
        reply = await upload(serve(convert_uploads=False), parts(configured(**fields)(files)))
    assert (reply.status_code, error_of(reply)["code"]) == (400, "not_available")
    assert "use `loraloom adapters add`" in error_of(reply)["message"]


@pytest.mark.parametrize(
    ("field", "value"), [("rank", "0"), ("rank", "many"), ("energy", "2"), ("max_kl", "-1"), ("probe", "/etc/passwd")]
)
async def test_options_of_a_conversion_that_do_not_fit(
    client: httpx.AsyncClient, store: Store, files: Files, field: str, value: str
) -> None:
    with unchanged(store):
        reply = await upload(client, parts(configured(use_dora=True)(files)), **{field: value})
    assert reply.status_code == 400
    assert field in error_of(reply)["message"] or "KL" in error_of(reply)["message"]


async def test_options_of_a_conversion_where_nothing_is_converted(
    client: httpx.AsyncClient, store: Store, files: Files
) -> None:
    with unchanged(store):
        reply = await upload(client, parts(files), rank="1")
    assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_body")
    assert "plain LoRA" in error_of(reply)["message"]


@pytest.mark.parametrize("charset", ["undefined", "a\0b"])
async def test_a_charset_that_is_none(client: httpx.AsyncClient, store: Store, charset: str) -> None:
    content = b"--x\r\ncontent-disposition: form-data; name=name\r\n\r\nsq\xfe.\r\n--x--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    with unchanged(store):
        reply = await client.post(ADAPTERS, content=content, headers=headers)
    assert told(reply) == (400, "invalid_body")
    assert "charset" in error_of(reply)["message"]
