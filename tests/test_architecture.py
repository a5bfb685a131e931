"""The layers of the package, executed: who may import whom, and what is public."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "instrument"

# A module imports from rows above its own and, within a row, only from what stands to its left.
# A sub-package is one entry; inside it any order without a cycle is fine.
LAYERS = {
    "words": "_root errors semconv",
    "values": "operation budget _clock",
    "parts": "_guard _account _signature _kinds _loading _files _kept _clean _hostnames _config"
    " carrier context _processes _threads _collector _opentelemetry usage _counts"
    " _rates _price_list _price_shelf pricing journal run_lock ambient _ledger_records _ledger"
    " _spending",
    "writing": "recorder _said _claims _finished running",
    "reading": "archive _lines _plain _scan _zones _snapshot _wanted _follow _begun _skew _stats"
    " _grouped _costs _databases _days _archived _gather _iterate _figures _deep _looks _typed _sql"
    " _bulk _fresh _recent _sums _select _summary _survey _ahead _filing _facts _batch _summing"
    " compaction retention _recovery _health _premises _doctor _outputs"
    " log",
    "capture": "_reserving _gates _asking wrappers proxies session streams tracked",
    "surfaces": "logger propagation clients exporters importers web testing pytest_plugin",
    "shell": "cli __main__",
}

# The write path and the read path meet only in `operation` and the journal's format. Imports
# across, inside a function, that are allowed nevertheless, each with its reason.
SANCTIONED = {
    ("session", "log"): "Session.stats() and Session.operations() read",
    ("_gates", "log"): "a named budget begins with what is in the log of its period",
}

PLACES = {
    name: (row, column)
    for row, line in enumerate(LAYERS.values())
    for column, name in enumerate(line.split())
}


class Import(NamedTuple):
    """Who imports what (dotted, without the package's own name; `` is the root), and when.

    `when` is `import`, `call` (inside a function) or `never` (for type checkers alone).
    """

    importer: str
    imported: str
    line: int
    when: str


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name inside it; the root is ``."""
    return {_dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _dotted(path: Path) -> str:
    return (
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        .removesuffix("__init__")
        .strip(".")
    )


def imports_of(importer: str, path: Path) -> Iterator[Import]:
    """Yield what the module imports from the package, wherever it does."""
    base = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    for node, when in _nodes(ast.parse(path.read_text()), "import"):
        for imported in _targets(node, base):
            yield Import(importer, imported, node.lineno, when)


def _nodes(tree: ast.AST, when: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield every node below `tree`, and when it is executed."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = "call"
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            inner = "never"
        else:
            inner = when
        yield node, when
        yield from _nodes(node, inner)


def _targets(node: ast.AST, base: str) -> list[str]:
    """Return the modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
        return [name.removeprefix("instrument").strip(".") for name in names if _is_ours(name)]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        above = base.split(".") if base else []
        source = ".".join([*above[: len(above) + 1 - node.level], node.module or ""]).strip(".")
    elif _is_ours(node.module or ""):
        source = (node.module or "").removeprefix("instrument").strip(".")
    else:
        return []
    return [_module_behind(source, alias.name) for alias in node.names]


def _is_ours(name: str) -> bool:
    return name == "instrument" or name.startswith("instrument.")


def _module_behind(source: str, name: str) -> str:
    """Tell `from instrument import journal` (a module) from `from instrument import tracked`."""
    candidate = f"{source}.{name}".strip(".")
    return candidate if candidate in modules() else source


def all_imports() -> list[Import]:
    return [found for name, path in modules().items() for found in imports_of(name, path)]


def entry(module: str) -> str:
    """Return the name by which the module stands in the table."""
    return module.partition(".")[0]


def allowed(found: Import) -> bool:
    importer, imported = entry(found.importer), entry(found.imported)
    if importer == imported:
        return True
    (row, column), (other_row, other_column) = PLACES[importer], PLACES[imported]
    return other_row < row or (other_row == row and other_column < column)


def in_layer(module: str, *layers: str) -> bool:
    return any(entry(module) in LAYERS[layer].split() for layer in layers)


def crosses_the_paths(found: Import) -> bool:
    """Whether code that writes imports code that reads, or the other way round."""
    if in_layer(found.importer, "reading"):
        return in_layer(found.imported, "writing", "capture")
    return in_layer(found.importer, "writing", "capture") and in_layer(found.imported, "reading")


def inside(found: Import) -> bool:
    """Whether both ends stand in the table, so that the rows speak about them."""
    return entry(found.importer) in PLACES and entry(found.imported) in PLACES


def test_every_module_stands_in_the_table() -> None:
    assert {entry(name) for name in modules()} - {"", *PLACES} == set()


def test_modules_import_only_from_above_and_from_their_left() -> None:
    assert [found for found in all_imports() if inside(found) and not allowed(found)] == []


def test_write_path_and_read_path_meet_only_where_it_is_sanctioned() -> None:
    met = {
        (entry(found.importer), entry(found.imported), found.when)
        for found in all_imports()
        if crosses_the_paths(found) and found.when != "never"
    }
    assert met == {(*pair, "call") for pair in SANCTIONED}


def test_nobody_imports_the_package_root() -> None:
    assert [found for found in all_imports() if found.importer and not found.imported] == []


def test_nobody_holds_the_context_variable_which_is_replaced_while_garbage_is_collected() -> None:
    holders = [
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "instrument.context"
        if "scope" in {alias.name for alias in node.names}
    ]
    assert holders == []


def test_modules_form_no_cycle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for found in all_imports():
        graph[found.importer].add(found.imported)
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", sorted({"", *modules()} - {"__main__"}))
def test_names_that_a_module_declares_public_exist(name: str) -> None:
    try:
        module = importlib.import_module(f"instrument.{name}".strip("."))
    except ModuleNotFoundError as missing:
        if _is_ours(missing.name or "instrument"):
            raise
        pytest.skip(f"{missing.name} is missing")
    declared = getattr(module, "__all__", ())
    assert [public for public in declared if not hasattr(module, public)] == []


def test_what_carries_sessions_loads_no_library_before_it_is_asked_for() -> None:
    code = "import instrument.propagation, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    pieces = {path.stem for path in (PACKAGE / "propagation").glob("[!_]*.py")}
    assert {"httpx", "celery", "grpc"} <= pieces
    assert pieces.intersection(loaded.split()) == set()


def test_the_package_root_declares_every_name_that_it_has_in_order() -> None:
    root = importlib.import_module("instrument")
    there = {name: getattr(root, name) for name in dir(root)}
    assert root.__all__ == sorted(n for n, value in there.items() if _is_public(n, value))


def _is_public(name: str, value: object) -> bool:
    return not (name.startswith("_") or isinstance(value, ModuleType) or name == "annotations")


def test_the_package_root_holds_nothing_but_names_and_what_finds_them_on_first_use() -> None:
    body = ast.parse(inspect.getsource(importlib.import_module("instrument"))).body
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    assert functions == {"__getattr__", "__dir__"}
    imports = {ast.Import, ast.ImportFrom, ast.If}
    assert {type(node) for node in body} == {ast.Expr, ast.Assign, ast.FunctionDef, *imports}


def loaded_by(statement: str) -> set[str]:
    """Return which of our modules a statement loads in a fresh interpreter."""
    code = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    return {name.removeprefix("instrument.") for name in loaded.split() if _is_ours(name)}


def test_what_reads_a_provider_is_loaded_where_it_is_decorated_and_no_other() -> None:
    for service, expected in (("openai", {"openai"}), ("gemini", {"google"}), ("mine", set())):
        names = loaded_by(f"from instrument import tracked; tracked(service={service!r})(print)")
        providers = {"anthropic", "cohere", "google", "openai", "tools"}
        assert {name for name in providers if f"usage.{name}" in names} == expected


def test_what_records_loads_nothing_that_reads_the_log() -> None:
    names = loaded_by("from instrument import session, track, tracked")
    assert "recorder" in names
    assert [name for name in names if in_layer(name, "reading")] == []


def test_importing_the_package_loads_nothing_before_a_name_of_it_is_used() -> None:
    assert loaded_by("import instrument") == {"instrument", "_root"}


@pytest.mark.parametrize("name", ["session", "tracked"])
def test_a_name_that_a_module_has_too_is_the_function_whatever_was_imported_first(
    name: str,
) -> None:
    code = f"import instrument.{name}, instrument; print(instrument.{name}.__qualname__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.split() == [name]


def test_modules_are_found_in_the_package_without_being_imported() -> None:
    code = "import instrument; print(instrument.errors.QueryError.__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.split() == ["QueryError"]


def test_an_unknown_name_of_the_package_root_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'instrument' has no attribute 'Tracker'"):
        importlib.import_module("instrument").Tracker  # noqa: B018 - it is the getting that fails


@pytest.mark.parametrize(
    ("statement", "imported"),
    [
        ("import instrument.journal", "journal"),
        ("from instrument.journal import append", "journal"),
        ("from instrument import journal", "journal"),
        ("from instrument import tracked_names", ""),
        ("import instrument", ""),
        ("from . import journal", "journal"),
        ("from .journal import append", "journal"),
        ("def late():\n    from instrument import journal", "journal"),
    ],
)
def test_both_forms_of_import_are_understood(statement: str, imported: str, tmp_path: Path) -> None:
    path = tmp_path / "session.py"
    path.write_text(statement)
    assert [found.imported for found in imports_of("session", path)] == [imported]
