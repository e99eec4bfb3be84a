"""An adapter that is damaged before its first use, and published again."""

import itertools
import shutil
import time
from pathlib import Path

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import Published
from loraloom.demo.catalog import demo_adapters
from tests.bench.soak_answers import BASE
from tests.faults.answers import CHAT, Question, ask, refusal
from tests.faults.errors import CampaignError
from tests.faults.recorder import GOOD
from tests.faults.site import Site

_NUMBERS = itertools.count(1)


async def damaged_and_healed(site: Site) -> float:
    """Damage a second version, see what is told of it and that the first still works, and repair it.

    Returns:
        When it was repaired.

    Raises:
        CampaignError: anything of that is not as it should be.
    """
    number = next(_NUMBERS)
    store, name = Store.open(site.disk.store, create=False), f"victim/{number}"
    question = next(each for each in site.questions if each.model == demo_adapters()[0].name)
    _published(site, store, demo_adapters()[0].folder, name)
    changed = _slightly_changed(demo_adapters()[0].folder, site.scratch / f"victim-{number}", number)
    second = _published(site, store, changed, name)
    _flip(store.folder(second.version.digest) / "adapter_model.safetensors")
    await _is_explained(site, question, name)
    await _answers(site, question, f"{name}@1")
    _published(site, store, changed, name)
    repaired = time.monotonic()
    await _answers(site, question, f"{name}@2")
    return repaired


def _published(site: Site, store: Store, folder: Path, name: str) -> Published:
    return store.publish(folder, name, base=fingerprint(site.model), base_name=BASE)


def _slightly_changed(source: Path, target: Path, number: int) -> Path:
    """The same adapter with other bytes, so that harming it harms no other."""
    from safetensors.torch import load_file, save_file

    target.mkdir()
    shutil.copy(source / "adapter_config.json", target)
    tensors = load_file(source / "adapter_model.safetensors")
    last = sorted(tensors)[-1]
    tensors[last] = tensors[last].float() * (1 + number / 10_000)
    save_file(tensors, target / "adapter_model.safetensors")
    return target


def _flip(weights: Path) -> None:
    """Change the last byte, as a failing disk would."""
    weights.parent.chmod(0o755)
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 0x40]))


async def _is_explained(site: Site, question: Question, name: str) -> None:
    reply = await site.client.post(CHAT, json={**question.body(stream=False), "model": f"{name}@2"})
    if refusal(reply.status_code, reply.content) != "500 adapter_damaged" or f"{name}@1" not in reply.text:
        raise CampaignError(f"a damaged adapter is answered with {reply.status_code}: {reply.text[:300]}")


async def _answers(site: Site, question: Question, model: str) -> None:
    how = await ask(site.client, Question(model, model, question.prompt, question.expected), stream=False)
    if how != GOOD:
        raise CampaignError(f"{model} is answered with {how}")
