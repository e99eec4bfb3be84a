"""What is built and installed is what is in the tree, and all of it."""

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]
"""Import name to folder, of the packages that are not below another."""


def sources(name: str) -> Iterator[tuple[str, Path]]:
    """The package of each Python file below one of `FOLDERS`, and the file."""
    top = ROOT / FOLDERS[name]
    for path in top.rglob("*.py"):
        yield ".".join([name, *path.parent.relative_to(top).parts]), path


def test_every_folder_with_code_is_a_listed_package() -> None:
    assert sorted({package for name in FOLDERS for package, _ in sources(name)}) == sorted(
        PROJECT["tool"]["setuptools"]["packages"]
    )


def test_no_package_is_left_out() -> None:
    tops = [path for pattern in ("*/__init__.py", "deploy/*/__init__.py") for path in ROOT.glob(pattern)]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in tops}
    assert folders == {*FOLDERS.values(), "tests"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it; the tree stays as it is."""
    tree = tmp_path_factory.mktemp("tree") / "loraloom"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tree.parent / "dist"), str(tree)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return tree.parent / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {f"{package.replace('.', '/')}/{path.name}" for name in FOLDERS for package, path in sources(name)}
    demo = ROOT / FOLDERS["loraloom.demo"]
    patterns = ("adapters/*/*", "jobs/*", "proxy/*", "small-model/healing.safetensors", "small-model/adapters/*/*")
    data = {f"loraloom/demo/{path.relative_to(demo)}" for pattern in patterns for path in demo.glob(pattern)}
    assert any(name.endswith(".safetensors") for name in data)
    assert held == wanted | data | {"loraloom/compose/report/report.html", "loraloom/server/kernels/lora.c"}


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(archive.read(name).decode())
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    assert (about["name"], about["license-expression"]) == ("loraloom", "Apache-2.0")
    assert set(about.get_all("provides-extra", [])) == {"compose", "convert", "cpu", "cuda", "demo", "dev", "s3"}
    needs = about.get_all("requires-dist", [])
    assert any(need.startswith("vllm<0.34,>=0.26") and "cuda" in need for need in needs)
    assert {need for need in needs if "extra ==" not in need} == set(PROJECT["project"]["dependencies"])


def test_the_sdist_can_be_worked_with(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    tracked = {path.relative_to(ROOT).as_posix() for top in ("deploy", "tests") for path in (ROOT / top).rglob("*.*")}
    wanted = {name for name in tracked if "__pycache__" not in name and (ROOT / name).is_file()}
    assert wanted | {"Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"} <= held
    assert "server/kernels/lora.c" in held
    assert not any("__pycache__" in name for name in held)


class Environment:
    """A virtual environment that holds nothing but the wheel."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.python = folder / "bin/python"
        self._run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        pip = (sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check")
        self._run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel))

    def evaluate(self, imports: str, expression: str) -> object:
        """The value of an expression there, by way of JSON."""
        return json.loads(self._run(str(self.python), "-c", f"import json, {imports}; print(json.dumps({expression}))"))

    def loraloom(self, *words: str) -> str:
        """What the console script prints."""
        return self._run(str(self.folder / "bin/loraloom"), *words)

    def _run(self, *command: str) -> str:
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder.parent)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    return Environment(tmp_path_factory.mktemp("empty") / "venv", wheel)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """The same, with the other packages of this environment within reach, though not its LoraLoom."""
    environment = Environment(tmp_path_factory.mktemp("furnished") / "venv", wheel)
    (packages,) = environment.folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_in_an_empty_environment_the_wheel_is_whole(empty: Environment) -> None:
    version = PROJECT["project"]["version"]
    assert empty.loraloom("--version") == f"loraloom {version}\n"
    assert "adapters" in empty.loraloom("--help")
    assert str(empty.evaluate("loraloom.adapters.names as m", "m.__file__")).startswith(str(empty.folder))
    assert empty.evaluate("loraloom.adapters.names as m", "m.parse_adapter('sql@4').name") == "sql"


def test_a_local_store_needs_the_standard_library_only(empty: Environment, tmp_path: Path) -> None:
    assert empty.evaluate("loraloom.adapters.store as m", f"m.Store.open({str(tmp_path / 'store')!r}).names()") == []


def test_vllm_finds_the_plugins(empty: Environment) -> None:
    for group, plugins in PROJECT["project"]["entry-points"].items():
        expression = f"{{e.name: e.value for e in m.entry_points(group={group!r})}}"
        assert empty.evaluate("importlib.metadata as m", expression) == plugins
    assert set(PROJECT["project"]["entry-points"]) == {"vllm.general_plugins", "vllm.endpoint_plugins"}


def test_with_its_dependencies_it_works(furnished: Environment, tmp_path: Path) -> None:
    assert str(furnished.evaluate("loraloom.server as m", "m.__file__")).startswith(str(furnished.folder))
    assert "max_loras: 8  # default" in furnished.loraloom("serve", "tiny", "--print-config").splitlines()
    names = furnished.evaluate("loraloom.demo.catalog as m", "[a.name for a in m.demo_adapters()]")
    assert names == sorted(path.parent.name for path in (ROOT / "deploy/demo/adapters").glob("*/card.json"))
