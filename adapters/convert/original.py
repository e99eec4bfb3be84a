"""The adapter as peft runs it, and the updates of the base's weights that it stands for."""

import copy
import json
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.adapters.convert.initial import Pair, initial_folder, read_initial
from loraloom.adapters.convert.models import is_linear, weight
from loraloom.adapters.convert.patterns import spelled_out
from loraloom.adapters.errors import BaseMismatch, InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, check_names, read_config, refused_tensor
from loraloom.adapters.peft_config import parse_object

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

_ADAPTER = "default"
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Original:
    """An adapter on its base.

    Attributes:
        model: as peft runs it.
        initial: the initial A and B of each layer, where the adapter took them out of the base's weights.
    """

    model: "PeftModel"
    initial: Mapping[str, Pair]

    def updates(self) -> "Iterator[tuple[str, Tensor]]":
        """Path and update of each adapted layer, float64 [out_features, in_features], one after the other.

        Raises:
            UnsupportedAdapter: a layer is not linear, cannot be merged, or its bias is changed.
        """
        for path, layer in _adapted(self.model):
            if not is_linear(layer.get_base_layer()):
                raise UnsupportedAdapter(
                    f"it changes {path}, a layer of type {type(layer.get_base_layer()).__name__}: only updates of "
                    "linear layers can be converted. Train it without that layer"
                )
            yield path, _learned(layer, *self.initial[path]) if self.initial else _merged(path, layer)


def put_on(base: "PreTrainedModel", folder: Path, *, changes_base: bool) -> Original:
    """Put the adapter in `folder` on the base, in float32.

    Args:
        base: is changed.
        folder: a private copy (`files.private_copy`), whose configuration is rewritten.
        changes_base: its initial A and B were taken out of the base's weights.

    Raises:
        InvalidAdapter: peft cannot read it.
        BaseMismatch: it does not fit the base.
        UnsupportedAdapter: it holds more than its kind's tensors, or peft is not installed.
    """
    from peft import PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    beside = initial_folder(folder) if changes_base else None
    with _explained():
        config = _read_config(folder, base)
        if beside is not None:
            config.init_lora_weights = True
        own = {id(tensor) for tensor in (*base.parameters(), *base.buffers())}
        model = PeftModel(base, config, _ADAPTER)
        for tensor in (*model.parameters(), *model.buffers()):
            if id(tensor) not in own and tensor.is_floating_point():
                tensor.data = tensor.data.float()
        initial: Mapping[str, Pair] = {path: _factors(layer) for path, layer in _adapted(model)} if changes_base else {}
        tensors = load_file(folder / WEIGHTS_FILE)
        check_names(tensors)
        set_peft_model_state_dict(model, {name: tensors[name] for name in _needed(model, tensors)}, _ADAPTER)
    if beside is not None:
        initial = _taken_out(model, read_initial(beside))
    return Original(model.eval(), initial)


def _read_config(folder: Path, base: "PreTrainedModel") -> Any:
    """peft's configuration of the adapter, without patterns, for use and not for training."""
    from peft import PeftConfig

    fields = spelled_out(parse_object(read_config(folder)), [path for path, _ in base.named_modules()])
    (folder / CONFIG_FILE).write_text(json.dumps(fields), encoding="utf-8")
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    if getattr(config, "megatron_config", None):
        raise UnsupportedAdapter("it was made for Megatron's layers: train it on the Hugging Face model")
    return config


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what peft raises into errors of this package, and keep its advice to trainers to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InvalidAdapter:
        raise
    except ImportError as error:  # some kinds need packages that peft does not bring
        raise UnsupportedAdapter(f"peft cannot load it without another package: {error}") from error
    except RuntimeError as error:  # load_state_dict: sizes
        raise BaseMismatch(
            f"peft cannot put it on this base: {error}. Name the base model that the adapter was trained on"
        ) from error
    except Exception as error:
        raise InvalidAdapter(
            f"peft cannot load it on this base ({type(error).__name__}: {error}). Does the adapter belong to it?"
        ) from error


def _needed(model: "PeftModel", given: Collection[str]) -> list[str]:
    """The names of the adapter's own tensors, all of which must be given, and no other.

    peft itself leaves what is missing at random, and loads what is too much over the base's weights.
    """
    from peft import get_peft_model_state_dict

    needed = sorted(get_peft_model_state_dict(model, adapter_name=_ADAPTER, save_embedding_layers=False))
    if missing := [name for name in needed if name not in given]:
        raise BaseMismatch(
            f"{len(missing)} of the {len(needed)} tensors that the adapter has on this base are not in its file, such "
            f"as {missing[0][:200]!r}. Name the base model that the adapter was trained on"
        )
    for name in sorted(set(given).difference(needed)):
        # With an adapter on the output layer, peft saves that layer's frozen weight too (save_embedding_layers).
        if not name.endswith(".base_layer.weight"):
            raise refused_tensor(name)
    return needed


def _adapted(model: "PeftModel") -> Iterator[tuple[str, Any]]:
    """Path and layer of each layer that the adapter is on, of peft's various classes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name.removeprefix(_PREFIX), module


def _merged(path: str, layer: Any) -> "Tensor":
    """Merged weight minus base weight, both in float64. Only this layer is copied."""
    import torch

    merged = copy.deepcopy(layer).double()
    base, bias = weight(layer.get_base_layer()), getattr(layer.get_base_layer(), "bias", None)
    try:
        merged.merge()
    except Exception as error:
        raise UnsupportedAdapter(f"peft cannot merge {path}: {type(error).__name__}: {error}") from error
    after = getattr(merged.get_base_layer(), "bias", None)
    same = bias is after if bias is None or after is None else torch.equal(bias.double(), after)
    if not same:
        raise UnsupportedAdapter(
            f"it changes the bias of {path} too, which LoRA cannot: train it on layers without a bias, or train a LoRA"
        )
    return weight(merged.get_base_layer()) - base


def _factors(layer: Any) -> Pair:
    return layer.lora_A[_ADAPTER].weight.detach().clone(), layer.lora_B[_ADAPTER].weight.detach().clone()


def _learned(layer: Any, a: "Tensor", b: "Tensor") -> "Tensor":
    """s (B A - B_0 A_0): what training made of the initial factors."""
    trained_a, trained_b = _factors(layer)
    scaling: float = layer.scaling[_ADAPTER]
    return scaling * (trained_b.double() @ trained_a.double() - b.double() @ a.double())


def _taken_out(model: "PeftModel", initial: Mapping[str, Pair]) -> Mapping[str, Pair]:
    """Take the initial factors out of the base's weights, as training began; returns them."""
    from torch.nn import Linear

    layers = dict(_adapted(model))
    if layers.keys() != initial.keys():
        raise InvalidAdapter(
            "the initial adapter has other modules than the trained one: it belongs to another training"
        )
    for path, layer in layers.items():
        a, b = initial[path]
        base = layer.get_base_layer()
        rest = weight(base)
        if (b.shape[0], a.shape[1]) != tuple(rest.shape) or a.shape[0] != layer.r[_ADAPTER]:
            raise InvalidAdapter(f"the initial adapter has another shape in {path}: it belongs to another training")
        rest = rest - layer.scaling[_ADAPTER] * (b.double() @ a.double())
        base.weight.data = (rest if isinstance(base, Linear) else rest.T).to(base.weight.dtype)
    return initial
