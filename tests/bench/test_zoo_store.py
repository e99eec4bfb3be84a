from pathlib import Path

import torch
from safetensors.torch import load_file

from loraloom.adapters.base import fingerprint
from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.demo.catalog import demo_adapters
from tests.bench.zoo_store import NOISE, filled, names, perturbed, task_of


def test_a_perturbed_adapter_is_a_demo_adapter_with_a_little_noise(tmp_path: Path) -> None:
    number = len(demo_adapters()) + 1
    given = load_file(demo_adapters()[task_of(number)].folder / WEIGHTS_FILE)
    noisy = load_file(perturbed(number, tmp_path) / WEIGHTS_FILE)
    assert noisy.keys() == given.keys()
    away = torch.cat([(noisy[name].float() - given[name].float()).flatten() for name in given])
    size = torch.cat([tensor.float().flatten() for tensor in given.values()])
    assert NOISE / 2 < away.norm() / size.norm() < 2 * NOISE


def test_a_store_is_filled_once_with_different_adapters(tmp_path: Path, demo_model: Path) -> None:
    base, count = fingerprint(demo_model), len(demo_adapters()) + 2
    store = filled(tmp_path, 2, base, "base")
    first = {name: store.versions(name) for name in store.names()}
    larger = filled(tmp_path, count, base, "base")
    assert set(larger.names()) == set(names(count))
    assert {name: larger.versions(name) for name in first} == first
    assert len({larger.versions(name)[0].digest for name in larger.names()}) == count
