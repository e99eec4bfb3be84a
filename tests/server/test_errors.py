"""Error classes: the tree in each module's docstring is the tree of the classes, and each is a builtin error too."""

import inspect
import re
from types import ModuleType

import pytest

from loraloom.adapters import errors as adapter_errors
from loraloom.server import errors as server_errors

_LINE = re.compile(r"    ((?:│   |    )*)(?:[├└]── )?(\w+)\s+(?:\((\w+)\))?\s*(.*)")
MODULES = [adapter_errors, server_errors]


def drawn(module: ModuleType) -> dict[str, tuple[str | None, str | None]]:
    """Each class of the tree in the docstring, with the class that it hangs from and the builtin in parentheses."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (module.__doc__ or "").splitlines():
        match = _LINE.fullmatch(f"{line} ") if line.startswith("    ") else None
        if match:
            depth = line.index(match[2]) // 4 - 1
            path[depth:] = [match[2]]
            tree[match[2]] = (path[depth - 1] if depth else None, match[3])
    return tree


def defined(module: ModuleType) -> dict[str, type[Exception]]:
    members: list[tuple[str, type[Exception]]] = inspect.getmembers(module, inspect.isclass)
    return {name: kind for name, kind in members if kind.__module__ == module.__name__}


@pytest.mark.parametrize("module", MODULES)
def test_the_tree_has_every_class(module: ModuleType) -> None:
    assert set(drawn(module)) == set(defined(module))


@pytest.mark.parametrize("module", MODULES)
def test_each_class_hangs_where_it_is_drawn(module: ModuleType) -> None:
    known = defined(module)
    for name, (parent, builtin) in drawn(module).items():
        names = [base.__name__ for base in known[name].__bases__]
        assert names == [each for each in (parent or "Exception", builtin) if each], name


@pytest.mark.parametrize("module", MODULES)
def test_each_class_is_a_builtin_error_too(module: ModuleType) -> None:
    base, *others = _root_first(module)
    assert issubclass(base, Exception)
    assert all(issubclass(kind, (ValueError, LookupError, OSError, RuntimeError)) for kind in others)


def _root_first(module: ModuleType) -> list[type[Exception]]:
    return sorted(defined(module).values(), key=lambda kind: len(kind.__mro__))


def test_a_refusal_says_which_field_it_is_about() -> None:
    assert server_errors.InvalidBody("no", param="model").param == "model"
    assert server_errors.PathClosed("no").param is None
    assert str(server_errors.NotServed("not here")) == "not here"
    assert server_errors.EngineUnavailable("later").param is None
