"""The initial A and B of an adapter whose initialisation took them out of the base's weights.

PiSSA, OLoRA, CorDA and LoRA-GA start from A_0 and B_0 and train on the base W - s B_0 A_0. What they learned, as an
update of W itself, is s (B A - B_0 A_0): twice the rank at most (peft's `LoraModel.subtract_mutated_init`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, read_manifest, tensor_name

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple["Tensor", "Tensor"]
"""A and B."""


def initial_folder(folder: Path) -> Path | None:
    """Where the initial adapter lies beside the trained one: the subfolder `initial`, or the only `…_init`.

    Raises:
        InvalidAdapter: several subfolders are named `…_init`.
    """
    if _is_adapter(folder / "initial"):
        return folder / "initial"
    found = [path for path in sorted(folder.glob("*_init")) if _is_adapter(path)]
    if len(found) > 1:
        raise InvalidAdapter(f"{found[0].name} and {found[1].name} may both be the initial adapter: remove one")
    return found[0] if found else None


def _is_adapter(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file() and not folder.is_symlink()


def read_initial(folder: Path) -> dict[str, Pair]:
    """The A and B of the plain LoRA in `folder`, a private copy, by module and unscaled.

    Raises:
        InvalidAdapter: as `read_manifest` does.
    """
    from safetensors.torch import load_file

    manifest = read_manifest(folder)
    tensors = load_file(folder / WEIGHTS_FILE)
    return {path: (tensors[tensor_name(path, "A")], tensors[tensor_name(path, "B")]) for path in manifest.modules}
