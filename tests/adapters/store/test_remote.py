"""What is particular to a store behind a URL: exclusive creation, lost answers, replicas, and few requests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from loraloom.adapters.errors import AdapterNotFound, StoreError
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.cache import CachedBlobs
from loraloom.adapters.store.remote import RemoteObjects
from tests.adapters.small_adapters import small_adapter


class Memory(MemoryFileSystem):
    """The objects of `memory://`, under another protocol."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(f"/{path.split('://', 1)[-1]}"))


class LookFirst(Memory):
    """Creates as fsspec does by default: it looks whether there is an object, and writes then."""

    protocol = "lookfirst"
    pipe_file = fsspec.AbstractFileSystem.pipe_file


class Careless(Memory):
    """Ignores the condition that there be no object yet, as some S3 servers do."""

    protocol = "careless"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **options)


class Forgetful(Memory):
    """Loses the answer to every creation that it has carried out."""

    protocol = "forgetful"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, mode=mode, **options)
        raise TimeoutError("no answer")


class Broken(Memory):
    """Answers no request."""

    protocol = "broken"

    def _fail(self, *arguments: Any, **options: Any) -> None:
        raise RuntimeError("backend on fire")

    pipe_file = put_file = cat_file = find = ls = _fail


@pytest.fixture(scope="module", autouse=True)
def filesystems() -> None:
    for kind in (LookFirst, Careless, Forgetful, Broken):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)


@pytest.fixture
def given(tmp_path: Path) -> list[Path]:
    return [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(3)]


def open_at(url: str, tmp_path: Path, refresh: float = 1.0) -> Store:
    objects = RemoteObjects(url, tmp_path / "cache", refresh)
    return Store(objects, CachedBlobs(objects, tmp_path / "cache", 2**30))


@pytest.mark.parametrize("protocol", ["lookfirst", "careless"])
def test_a_storage_that_cannot_keep_writers_apart_is_only_read(
    protocol: str, tmp_path: Path, given: list[Path]
) -> None:
    version = open_at(f"memory://{tmp_path.name}", tmp_path).publish(given[0], "sql").version
    store = open_at(f"{protocol}://{tmp_path.name}", tmp_path)
    assert store.resolve(Adapter("sql")) == version
    for change in (
        lambda: store.publish(given[1], "sql"),
        lambda: store.tag("sql", "stable", 1),
        lambda: store.remove("sql"),
        lambda: store.pin(Adapter("sql")),
    ):
        with pytest.raises(StoreError, match="can only be read"):
            change()
    assert open_at(f"memory://{tmp_path.name}", tmp_path).versions("sql") == [version]


def test_a_lost_answer_is_not_a_lost_version(tmp_path: Path, given: list[Path]) -> None:
    store = open_at(f"forgetful://{tmp_path.name}", tmp_path)
    assert [store.publish(folder, "sql").version.number for folder in given] == [1, 2, 3]
    assert [move.version for move in store.tag_history("sql", "latest")] == [1, 2, 3]


def test_errors_of_any_kind_are_told_as_the_stores(tmp_path: Path, given: list[Path]) -> None:
    url = f"broken://{tmp_path.name}"
    with pytest.raises(StoreError, match="backend on fire"):
        Store.open(url, cache=tmp_path / "cache")
    store = open_at(url, tmp_path)
    for call in (
        store.names,
        lambda: store.resolve(Adapter("sql")),
        lambda: store.publish(given[0], "sql"),
        lambda: store.check("0" * 64),
    ):
        with pytest.raises(StoreError, match=r"broken://.*"):
            call()


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    fsspec.register_implementation("nopackage", "no_such_package.FileSystem", errtxt="install no_such_package")
    with pytest.raises(StoreError, match="install no_such_package"):
        Store.open("nopackage://x", cache=tmp_path)


class CountingFiles(Memory):
    """Counts the requests for listings and for objects."""

    protocol = "counting"
    requests: list[str] = []

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.requests.append(path)
        return super().find(path, *arguments, **options)

    def ls(self, path: str, *arguments: Any, **options: Any) -> Any:
        if options.get("detail") is False:
            self.requests.append(path)
        return super().ls(path, *arguments, **options)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.requests.append(path)
        return super().cat_file(path, *arguments, **options)


@pytest.fixture
def requests() -> list[str]:
    fsspec.register_implementation("counting", CountingFiles, clobber=True)
    CountingFiles.requests.clear()
    return CountingFiles.requests


def test_a_look_up_asks_once_in_a_while(tmp_path: Path, given: list[Path], requests: list[str]) -> None:
    for number in range(3):
        open_at(f"memory://{tmp_path.name}", tmp_path).publish(given[number], f"sql{number}", tag="stable")
    store = open_at(f"counting://{tmp_path.name}", tmp_path, refresh=3600)
    for _ in range(100):
        store.resolve(Adapter("sql1"))
        store.tags("sql1")
    # One listing, the version, and the first move of each of its two tags.
    assert len(requests) == 4
    assert all("names/sql1" in path for path in requests)
    requests.clear()
    assert store.names() == ["sql0", "sql1", "sql2"]
    # One listing of all, and the versions that tell how the names are spelled.
    assert len(requests) == 3


def test_own_changes_are_seen_at_once_and_those_of_others_soon(tmp_path: Path, given: list[Path]) -> None:
    url = f"memory://{tmp_path.name}"
    mine, other = open_at(url, tmp_path, refresh=3600), open_at(url, tmp_path, refresh=0.0)
    with pytest.raises(AdapterNotFound):
        mine.resolve(Adapter("sql"))
    other.publish(given[0], "sql")
    with pytest.raises(AdapterNotFound):
        mine.resolve(Adapter("sql"))
    mine.publish(given[1], "sql")
    assert mine.resolve(Adapter("sql")).number == 2
    assert other.resolve(Adapter("sql")).number == 2
    other.remove("sql", 2)
    assert mine.resolve(Adapter("sql")).number == 2
    assert mine.names() == ["sql"]
    assert mine.tags("sql") == {"latest": 1}


def test_an_audit_entry_takes_one_look_and_no_listing(tmp_path: Path, given: list[Path], requests: list[str]) -> None:
    other = open_at(f"memory://{tmp_path.name}", tmp_path, refresh=0.0)
    for number in (1, 2):
        other.publish(given[0], "sql")
        other.tag("sql", "stable", number)
        other.remove("sql")
    store = open_at(f"counting://{tmp_path.name}", tmp_path, refresh=3600)
    assert store.publish(given[1], "sql").created
    first = [path.rsplit("/", 1)[1] for path in requests if "/audit" in path]
    assert first == [f"{number:06d}.json" for number in range(1, 8)]
    requests.clear()
    store.tag("sql", "stable", 3)
    assert [path.rsplit("/", 1)[1] for path in requests if "/audit" in path] == ["000008.json"]
    assert [entry.number for entry in store.audit.entries()] == list(range(1, 9))


def test_a_lost_answer_leaves_one_chain(tmp_path: Path, given: list[Path]) -> None:
    store = open_at(f"forgetful://{tmp_path.name}", tmp_path)
    for folder in given:
        store.publish(folder, "sql")
    assert [entry.subject["version"] for entry in store.audit.entries()] == [1, 2, 3]
    assert store.audit.check().findings == ()


def test_pins_are_read_anew_by_one_listing(tmp_path: Path, given: list[Path], requests: list[str]) -> None:
    url = f"memory://{tmp_path.name}"
    mine, other = open_at(url, tmp_path, refresh=3600), open_at(f"counting://{tmp_path.name}", tmp_path, refresh=3600)
    mine.publish(given[0], "sql")
    assert other.pins() == []
    assert len(requests) == 1
    assert mine.pin(Adapter("sql"))
    assert not mine.pin(Adapter("sql"))
    assert mine.pins() == other.pins() == [Adapter("sql")]
    requests.clear()
    assert other.pins() == [Adapter("sql")]
    assert [path.rpartition("/")[2] for path in requests] == ["pins"]
    assert other.unpin(Adapter("sql"))
    assert mine.pins() == other.pins() == []


class OneAtATime:
    """The application, answering one request after the other: what S3 promises of conditional ones, moto does not."""

    def __init__(self, application: DomainDispatcherApplication) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        with self._lock:
            return list(self._application(environ, start_response))


@pytest.fixture
def strict_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket whose server is exact about conditional requests."""
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    # Connections are kept by what the URL says, which is not all that they depend on.
    S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket="strict")
    yield "s3://strict"
    S3FileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()
    server.server_close()


def test_replicas_on_s3_write_one_name_at_once(strict_s3: str, tmp_path: Path) -> None:
    replicas, turns = 4, 2
    given = [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(replicas * turns)]
    same = small_adapter(tmp_path / "same", 99)
    start, failures = threading.Barrier(replicas), []

    def write(number: int) -> None:
        try:
            store = Store.open(strict_s3, cache=tmp_path / f"cache{number}")
            start.wait()
            for folder in given[number::replicas]:
                version = store.publish(folder, "sql", tag="mine").version
                store.tag("sql", "moved", version.number)
            store.publish(same, "same")
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(number,)) for number in range(replicas)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []

    store = Store.open(strict_s3, cache=tmp_path / "cache")
    numbers = list(range(1, len(given) + 1))
    versions = store.versions("sql")
    assert [version.number for version in versions] == numbers
    assert len({version.digest for version in versions}) == len(given)
    assert [move.version for move in store.tag_history("sql", "latest")] == numbers
    assert [move.version for move in store.tag_history("sql", "mine")] == numbers
    assert sorted(move.version for move in store.tag_history("sql", "moved")) == numbers
    assert [version.number for version in store.versions("same")] == [1]
    assert {finding.kind for finding in store.verify()} <= {"garbage"}


def test_replicas_on_s3_publish_what_another_removes(strict_s3: str, tmp_path: Path) -> None:
    url = f"{strict_s3}/another/store"
    given = [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(2)]
    replicas, turns = 2, 3
    start, failures = threading.Barrier(replicas + 1), []
    ended = threading.Semaphore(0)

    def tell(work: Callable[[Store], None], number: int) -> None:
        try:
            start.wait()
            work(Store.open(url, cache=tmp_path / f"cache{number}"))
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            ended.release()

    def publish_and_remove(store: Store) -> None:
        for turn in range(turns):
            version = store.publish(given[turn % 2], f"sql{turn % 2}").version
            with suppress(AdapterNotFound):  # the other was faster
                store.remove(version.name)
        store.publish(given[0], "kept")

    def collect(store: Store) -> None:
        while not ended.acquire(blocking=False):
            list(store.collect())

    works = [publish_and_remove] * replicas + [collect]
    threads = [threading.Thread(target=tell, args=(work, number)) for number, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []

    store = Store.open(url, cache=tmp_path / "cache")
    list(store.collect())
    assert store.names() == ["kept"]
    # Moves of tags that two publishers announced at once, of which one was first.
    assert {(finding.kind, finding.path.split("/")[0]) for finding in store.verify()} <= {("garbage", "names")}
    assert [version.number for version in store.versions("kept")] == [1]
