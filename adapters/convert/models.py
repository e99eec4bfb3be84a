"""Language models for the CPU, and what of them an update can change."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.adapters import hub
from loraloom.adapters.errors import InvalidBase, UnsupportedAdapter

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(model: str | Path, dtype: str = "auto") -> "PreTrainedModel":
    """A causal language model on the CPU, from a folder or the Hugging Face Hub; only safetensors are read.

    Args:
        model: a folder, or an id.
        dtype: "auto" is the one that its weights are stored in.

    Raises:
        InvalidBase: it cannot be had, or is quantised.
        UnsupportedAdapter: a package that conversions need is not installed.
    """
    _check_packages()
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        if getattr(AutoConfig.from_pretrained(model), "quantization_config", None):
            raise InvalidBase(f"{model} is quantised: name the model that it was made from, in its full precision")
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, use_safetensors=True)
    except InvalidBase:
        raise
    except Exception as error:  # transformers, safetensors and the Hub have a dozen between them
        raise InvalidBase(_explain(model, error)) from error
    loaded.train(False)
    return loaded


def _check_packages() -> None:
    if absent := [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]:
        raise UnsupportedAdapter(
            f"converting it needs {' and '.join(absent)}, which is not installed: pip install 'loraloom[convert]'"
        )


def load_tokenizer(model: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model; raises `InvalidBase` if it has none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except Exception as error:
        raise InvalidBase(f"the tokenizer of {_explain(model, error)}") from error


def _explain(model: str | Path, error: Exception) -> str:
    if Path(model).is_dir():
        return f"{model} cannot be loaded as a language model by transformers: {type(error).__name__}: {error}"
    cause = error.__cause__  # transformers wraps what the Hub's client raised
    return hub.explain(cause if isinstance(cause, Exception) else error, str(model))


def linear_layers(model: "nn.Module") -> "Iterator[tuple[str, nn.Module]]":
    """The linear layers that have weights of their own, with their paths: a tied output layer is left out."""
    embedded = {id(module.weight) for module in model.modules() if _is_embedding(module)}
    for path, module in model.named_modules():
        if is_linear(module) and id(module.weight) not in embedded:
            yield path, module


def is_linear(module: "nn.Module") -> bool:
    """Whether LoRA can change the layer: torch's own linear layer, or GPT-2's transposed one."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Linear | Conv1D)


def _is_embedding(module: "nn.Module") -> bool:
    from torch.nn import Embedding

    return isinstance(module, Embedding)


def weight(layer: Any) -> "Tensor":
    """The layer's weight in float64, [out_features, in_features]."""
    from torch.nn import Linear

    own: Tensor = layer.weight.detach().double()
    return own if isinstance(layer, Linear) else own.T
