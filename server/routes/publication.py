"""Publishing while the server runs: from a folder or a source, for the model that the adapter is of."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from pydantic import BaseModel

from loraloom.adapters.convert.kinds import kind_of
from loraloom.adapters.convert.options import Options
from loraloom.adapters.manifest import read_manifest
from loraloom.adapters.names import check_name
from loraloom.adapters.sources import fetched
from loraloom.adapters.store.facts import Fact
from loraloom.adapters.store.records import Published
from loraloom.server.access.view import View
from loraloom.server.base import ServedBase
from loraloom.server.errors import InvalidBody, NotServed
from loraloom.server.gate.gate import Gate


class Publication(BaseModel, frozen=True, extra="forbid"):
    """How to publish.

    Attributes:
        name: the adapter's name.
        tag: a tag to move to the new version, besides `latest`.
        allow_noop: publish also an adapter that changes nothing.
        base: the model that it was trained on, where the server serves adapters of several.
        rank, energy, max_kl: what the conversion of an adapter of another kind may lose; see `Options` of
            `adapters.convert`.
    """

    name: str
    tag: str | None = None
    allow_noop: bool = False
    base: str | None = None
    rank: int | None = None
    energy: float | None = None
    max_kl: float | None = None

    @property
    def conversion(self) -> Options:
        """The options of a conversion; raises `InvalidAdapter` if they do not fit."""
        given = {"rank": self.rank, "energy": self.energy, "max_kl": self.max_kl}
        return Options(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]


async def from_source(gate: Gate, seen: View, source: str, publication: Publication) -> Published:
    """Fetch an adapter and publish it; what a key may not do takes no place of what others do.

    Raises:
        Forbidden: the key does not publish under this name.
        NotServed: the source does not begin with an allowed prefix, or nothing is converted here.
    """
    _check_source(gate, seen, source)
    check_publishable(gate, seen, publication.name)
    return await gate.work.do(seen.access.key, _fetch_and_publish, gate, seen, source, publication)


def _fetch_and_publish(gate: Gate, seen: View, source: str, publication: Publication) -> Published:
    with fetched(source, gate.settings.cache / "sources") as folder:
        return publish_folder(gate, seen, folder, publication)


def _check_source(gate: Gate, seen: View, source: str) -> None:
    """What a key may fetch from lies under a prefix of the server's, and under one of its own if it has any."""
    prefixes, own = gate.settings.allowed_sources, seen.access.sources
    if _allowed(source, prefixes) and (own is None or _allowed(source, own)):
        return
    told = prefixes if own is None else own
    known = "none: `allowed_sources` is empty"
    if told:
        known = f"those that begin with {', '.join(told)}, and then have no `..`, `::`, blank or control character"
    what = f"this server does not fetch from {source[:200]!r}"
    raise NotServed(f"{what}. It may fetch from {known}", param="source")


def check_publishable(gate: Gate, seen: View, name: str) -> None:
    """See that the key may publish under a name, and that it is not the served base model's own; never blocks.

    Raises:
        InvalidName, InvalidBody, Forbidden: it cannot be published under.
    """
    gate.selector.check_not_base(check_name(name))
    seen.check_may_create(name)


def publish_folder(gate: Gate, seen: View, folder: Path, publication: Publication) -> Published:
    """Publish a folder for the served base, or with proxy-tuning for the model of the two that it is of.

    The name has been seen to be publishable.

    Raises:
        NameTaken: the name exists in another spelling.
        InvalidAdapter: the adapter is refused.
    """
    seen.check_free(publication.name, publication.tag)
    base = _base_of(gate, folder, publication)
    with seen.publishing(publication.name), _as_plain_lora(gate, folder, base, publication) as (plain, facts):
        return gate.store.publish(
            folder,
            publication.name,
            plain=plain,
            facts=facts,
            tag=publication.tag,
            base=base.fingerprint,
            base_name=base.name,
            allow_noop=publication.allow_noop,
            by=seen.access.key,
        )


def _base_of(gate: Gate, folder: Path, publication: Publication) -> ServedBase:
    """The model that an adapter is published for; another kind than plain LoRA has to be told where there are two."""
    if publication.base is not None:
        return gate.base.named(publication.base)
    if len(gate.base.all) == 1:
        return gate.base
    kind = kind_of(folder)
    if kind.treatment != "plain":
        names = " or ".join(repr(each.name) for each in gate.base.all)
        raise InvalidBody(f"to convert {kind.name}, name the model it was trained on, {names}", param="base")
    return gate.base.owner_of_new(read_manifest(folder))


@contextmanager
def _as_plain_lora(
    gate: Gate, folder: Path, base: ServedBase, publication: Publication
) -> Iterator[tuple[Path, Mapping[str, Fact]]]:
    """The adapter as plain LoRA, for the time of the block, and what was measured of its conversion."""
    kind = kind_of(folder)
    if kind.treatment == "plain":
        if publication.conversion != Options():
            raise InvalidBody(
                "it is plain LoRA and stored as it is: leave out `rank`, `energy` and `max_kl`, meant for other kinds"
            )
        yield folder, {}
        return
    if not gate.settings.convert_uploads:
        raise NotServed(
            f"{kind.name} must be converted to plain LoRA, which this server does not do (`convert_uploads`): use "
            "`loraloom adapters add`"
        )
    with tempfile.TemporaryDirectory(dir=gate.scratch.folder) as out:
        conversion = gate.offline.convert(folder, Path(out), base.model, publication.conversion)
        yield Path(out), {"conversion": conversion.as_json()}


def _allowed(source: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a source lies under one of the prefixes, a whole folder at a time."""
    folders = (f"{prefix.rstrip('/')}/" for prefix in prefixes)
    return any(f"{source}/".startswith(folder) and _stays(source[len(folder) :]) for folder in folders)


def _stays(rest: str) -> bool:
    """Whether the rest of a source leads nowhere else: up, or on to another filesystem, as fsspec reads "::".

    Blanks and control characters are refused: addresses lose some of them when they are read, and ".\\t." is ".." then.
    """
    if "::" in rest or any(character < "\x21" or character == "\x7f" for character in rest):
        return False
    return ".." not in unquote(rest).replace("\\", "/").split("/")
