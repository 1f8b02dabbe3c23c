"""How the packages hang together: which imports which, what stays at the rim, what each public name and command is."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RANK = {"pipeline": 0, "training": 1, "analysis": 2}  # a package imports itself and packages of lower rank

HOMES = {  # the only files that import these; everything else runs without them
    "ray": {"pipeline/cluster.py", "analysis/compare.py"},
    "zarr": {"pipeline/value_arrays.py"},
    "pytorch_lightning": {"training/graph_data.py", "training/tasks.py", "training/__main__.py"},
    "torch_geometric": {"pipeline/pyg_graph.py", "pipeline/parameter_graph.py", "pipeline/exported_dataset.py"},
    "sklearn": {"pipeline/images.py", "training/baselines.py"},
    "matplotlib": {
        "analysis/figures.py",
        "pipeline/drawing_canvas.py",
        "pipeline/draw_layers.py",
        "pipeline/draw_nodes.py",
        "pipeline/zoo_plots.py",
    },
}

PUBLIC_NAMES = [
    ("pipeline.tracing", "trace"),
    ("pipeline.symmetry", "check"),
    ("pipeline.parameter_graph", "GraphTemplate"),
    ("pipeline.parameter_graph", "ParameterGraph"),
    ("pipeline.graph_store", "open_graphs"),
    ("training.gmn", "GraphMetanetwork"),
    ("analysis.moments", "Moments"),
    ("analysis.similarity", "cka"),
    ("analysis.similarity", "cka_matrix"),
]

SLOW = {
    "torch",
    "ray",
    "torch_geometric",
    "pytorch_lightning",
    "sklearn",
    "matplotlib",
}  # a second or more to import, each

MODULES = sorted(path for package in RANK for path in (ROOT / package).rglob("*.py"))


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the package's name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_against_the_data(path: Path) -> None:
    rank = RANK[path.relative_to(ROOT).parts[0]]
    upward = [name for name in imported_names(path) if RANK.get(name.split(".")[0], -1) > rank]
    assert not upward, f"{name_of(path)} imports {upward}; the arrows are analysis -> training -> pipeline"


def test_an_upward_import_inside_a_function_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from analysis.similarity import cka\n    import ray.util\n")
    assert list(imported_names(path)) == ["analysis.similarity.cka", "ray.util"]


@pytest.mark.parametrize("library", HOMES)
def test_frameworks_stay_in_their_homes(library: str) -> None:
    found = {name_of(path) for path in MODULES if library in {name.split(".")[0] for name in imported_names(path)}}
    assert found <= HOMES[library]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_opens_with_a_docstring_and_annotations_are_evaluated(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    assert "__future__.annotations" not in imported_names(path), "it can blind the shape checks of dataclasses"
    if path.name == "__init__.py":
        assert len(tree.body) == 1, f"{name_of(path)} does more than its docstring"


@pytest.mark.parametrize("package", RANK)
def test_every_package_says_what_it_is(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize(("module", "name"), PUBLIC_NAMES)
def test_public_names_are_imported_from_their_modules(module: str, name: str) -> None:
    public = getattr(importlib.import_module(module), name)
    assert public.__module__ == module
    assert public.__doc__


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=name_of)
def test_the_command_in_its_first_line_loads_every_shipped_configuration(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    python, module_flag, package, *arguments = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    assert (python, module_flag) == ("python", "-m")
    assert name_of(path) in arguments
    importlib.import_module(f"{package}.__main__").read_command(arguments)


def test_there_are_configurations_to_load() -> None:
    assert {path.parent.name for path in (ROOT / "configs").glob("*/*.yaml")} >= {"zoo", "training"}


@pytest.mark.parametrize("package", RANK)
def test_help_lists_the_commands_without_importing_what_is_slow(package: str) -> None:
    """Python's own list of imports, from the very command: that is why help comes within a second."""
    command = [sys.executable, "-X", "importtime", "-m", package, "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"python -m {package}" in result.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert package in imported
    assert not imported & SLOW


HELP_OF_EVERY_COMMAND = """
import contextlib, importlib, io, json, sys
package = importlib.import_module(sys.argv[1] + ".__main__")
seen = {}
for command in package.COMMANDS:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            package.read_command([command, "--help"])
        except SystemExit as exit:
            code = exit.code
    seen[command] = (code, text.getvalue(), sorted({name.partition(".")[0] for name in sys.modules}))
print(json.dumps(seen))
"""


@pytest.mark.parametrize("package", ["pipeline", "analysis"])
def test_help_of_a_command_imports_nothing_slow_but_torch(package: str) -> None:
    """All commands of a package in one process, since each would import torch anew."""
    command = [sys.executable, "-c", HELP_OF_EVERY_COMMAND, package]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    for name, (code, text, modules) in json.loads(result.stdout).items():
        assert code == 0, name
        assert f"python -m {package} {name}" in re.sub(r"\s+", " ", text)
        assert not set(modules) & (SLOW - {"torch"}), name


def canonical(package: str) -> str:
    """The name of a package as package registries compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def test_constraints_pin_everything_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["test"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert {canonical(re.split(r"[\[>]", name)[0]) for name in asked} - {"metazoo"} <= set(map(canonical, pins))
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values()), "no ranges, no local versions (+cpu)"
    assert "torchvision" not in pins
    assert lines == sorted(lines, key=str.lower)


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("*.md")], ids=name_of
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not dead


@pytest.mark.parametrize("package", ["pipeline", "analysis", "training"])
def test_a_command_without_settings_says_what_it_needs(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"{package}.__main__")
    for command in module.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            module.read_command([command])
        error = capsys.readouterr().err
        assert stop.value.code == 2, command
        assert "required" in error, command
        assert "Traceback" not in error
