"""`loraloom adapters add` and `import`: adapters from anywhere into the store, converted on the way if need be."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from loraloom.adapters.errors import AdapterError, InvalidBase
from loraloom.adapters.manifest import CONFIG_FILE, read_manifest
from loraloom.adapters.names import check_name
from loraloom.adapters.store import Store
from loraloom.adapters.store.facts import Fact
from loraloom.adapters.store.records import Published
from loraloom.server.cli.fact_text import fact_text
from loraloom.server.cli.lora_modules import entries, parse_entry
from loraloom.server.cli.options import configured, user
from loraloom.server.errors import ServerError
from loraloom.server.settings import Settings
from loraloom.server.store import open_store

if TYPE_CHECKING:
    from loraloom.adapters.base import BaseFingerprint
    from loraloom.adapters.convert.options import Conversion
    from loraloom.adapters.convert.options import Options as ConversionOptions

Options = argparse.Namespace
Extra = Sequence[str]

_CONVERSION = ("rank", "energy", "max_kl", "probe")
"""The options of a command that say how to convert."""


@dataclass(frozen=True, slots=True)
class Addition:
    """One adapter to add.

    Attributes:
        base: the base model, which must be within reach; None: what `parent` or the adapter names, if that is.
        parent: the base's name, as somebody said who may not have meant a place.
        conversion: what to allow a conversion.
    """

    source: str
    name: str
    tag: str | None = None
    base: str | None = None
    parent: str | None = None
    allow_noop: bool = False
    conversion: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An adapter on this machine: `folder` as it was given, `plain` as plain LoRA."""

    folder: Path
    plain: Path
    conversion: "Conversion | None" = None

    @property
    def facts(self) -> dict[str, Fact]:
        return {"conversion": self.conversion.as_json()} if self.conversion else {}


def add(options: Options, _: Extra) -> int:
    """Fetch, check, convert if need be, and publish one adapter."""
    settings = configured(options).settings
    addition = Addition(source=options.source, name=check_name(options.name), **_common(options))
    publish(addition, open_store(settings), settings)
    return 0


def import_modules(options: Options, _: Extra) -> int:
    """Add each adapter of a list as vLLM takes it; status 1 when one of them failed."""
    settings = configured(options).settings
    outcomes = {"added": 0, "there already": 0, "failed": 0}
    store = open_store(settings)
    for entry in entries(options.entries):
        outcomes[_import_one(entry, options, store, settings)] += 1
    print(", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()))
    return 1 if outcomes["failed"] else 0


def publish(addition: Addition, store: Store, settings: Settings) -> Published:
    """Publish one adapter, and tell what it is.

    Raises:
        AdapterError: it is refused, or cannot be fetched or written.
    """
    from loraloom.adapters.sources import fetched

    name = check_name(addition.name)
    with fetched(addition.source, settings.cache / "sources") as folder, _prepared(folder, addition) as prepared:
        base_name = addition.base or addition.parent or read_manifest(prepared.plain).base_model
        base = _fingerprint(addition.base, base_name)
        published = store.publish(
            prepared.folder,
            name,
            plain=prepared.plain,
            tag=addition.tag,
            base=base,
            base_name=base_name,
            allow_noop=addition.allow_noop,
            by=user(),
            provenance=_provenance(addition, prepared),
            facts=prepared.facts,
        )
    _tell(published, store, prepared.conversion)
    if base is None:
        place = base_name or "(not named)"
        print(f"its base {place} was not found: it will be checked at its first use", file=sys.stderr)
    return published


def _common(options: Options) -> dict[str, Any]:
    """What the options of both commands say of an addition."""
    given = {key: getattr(options, key) for key in _CONVERSION}
    return {
        "tag": options.tag,
        "base": options.base,
        "allow_noop": options.allow_noop,
        "conversion": {key: value for key, value in given.items() if value is not None},
    }


def _import_one(entry: str, options: Options, store: Store, settings: Settings) -> str:
    """What became of one entry."""
    try:
        module = parse_entry(entry)
        addition = Addition(module.path, module.name, parent=module.base_model_name, **_common(options))
        return "added" if publish(addition, store, settings).created else "there already"
    except (AdapterError, ServerError, OSError) as error:
        print(f"loraloom: {entry}: {error}", file=sys.stderr)
        return "failed"


@contextmanager
def _prepared(folder: Path, addition: Addition) -> Iterator[_Prepared]:
    """The adapter as plain LoRA too, if it is of another kind or a whole model, for the time of the block."""
    from loraloom.adapters.convert.kinds import kind_of

    if _is_checkpoint(folder):
        with _converted(addition) as (out, base, options):
            from loraloom.adapters.convert.convert import extract

            yield _Prepared(out, out, extract(folder, base, out, options))
    elif kind_of(folder).treatment == "plain":
        if addition.conversion:
            print(f"{addition.name} is plain LoRA already: nothing was converted", file=sys.stderr)
        yield _Prepared(folder, folder)
    else:
        with _converted(addition, folder) as (out, base, options):
            from loraloom.adapters.convert.convert import convert

            yield _Prepared(folder, out, convert(folder, out, base, options))


@contextmanager
def _converted(addition: Addition, adapter: Path | None = None) -> "Iterator[tuple[Path, str, ConversionOptions]]":
    """A folder for what a conversion makes, the base that it needs, and what it may lose."""
    from loraloom.adapters.convert.options import Options as ConversionOptions

    base = addition.base or (adapter and (addition.parent or _named_base(adapter)))
    if not base:
        what = "an adapter of this kind is converted" if adapter else "what a whole model has learned is extracted"
        raise InvalidBase(f"{what} with the help of its base model: name that with --base")
    with TemporaryDirectory(prefix="loraloom-") as out:
        yield Path(out), base, ConversionOptions(**addition.conversion)


def _named_base(adapter: Path) -> str | None:
    from loraloom.adapters.manifest import read_config
    from loraloom.adapters.peft_config import parse_object

    named = parse_object(read_config(adapter)).get("base_model_name_or_path")
    return named if isinstance(named, str) else None


def _is_checkpoint(folder: Path) -> bool:
    """Whether this is a whole model, and no adapter."""
    if (folder / CONFIG_FILE).exists() or not (folder / "config.json").is_file():
        return False
    return any(folder.glob("model*.safetensors"))


def _fingerprint(wanted: str | None, name: str | None) -> "BaseFingerprint | None":
    from loraloom.adapters.base import find_fingerprint

    base = find_fingerprint(name) if name else None
    if wanted and base is None:
        raise InvalidBase(f"there is no base model {wanted!r}: give its directory or its Hugging Face id")
    return base


def _provenance(addition: Addition, prepared: _Prepared) -> dict[str, object]:
    provenance: dict[str, object] = {"source": addition.source}
    if prepared.conversion and prepared.folder == prepared.plain:
        provenance["extracted"] = "what this fine-tuned model learned beyond its base"
    return provenance


def _tell(published: Published, store: Store, conversion: "Conversion | None") -> None:
    record = published.version
    print(f"{'added' if published.created else 'there already:'} {record.canonical}  sha256:{record.digest[:12]}")
    if conversion:
        print(fact_text("conversion", conversion.as_json()))
    if update := store.facts(record.digest).get("update"):
        print(fact_text("update", update))
