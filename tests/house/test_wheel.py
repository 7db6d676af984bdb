"""The wheel against what is on disk: an editable install hides a package that pyproject.toml forgets to list."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

IMPORT_ALL = """
import importlib, sys
wheel, packages, *modules = sys.argv[1:]
sys.path.insert(0, wheel)
sys.path.append(packages)
for name in modules:
    module = importlib.import_module(name)
    assert module.__file__.startswith(wheel), f"{name} came from {module.__file__}"
"""


def mapping(checkout: Path) -> dict[str, str]:
    pyproject = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    folders: dict[str, str] = pyproject["tool"]["setuptools"]["package-dir"]
    return folders


def on_disk(checkout: Path) -> set[str]:
    """Every file of the package, under the name that it should have in the wheel."""
    names = set()
    folders = {checkout / folder for folder in mapping(checkout).values()}
    for package, folder in mapping(checkout).items():
        # What lies inside, and is a package of its own, has its own name there.
        others = {other for other in folders if (checkout / folder) in other.parents}
        for path in (checkout / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and others.isdisjoint(path.parents):
                inside = path.relative_to(checkout / folder)
                names.add(str(PurePosixPath(*package.split("."), *inside.parts)))
    return names


def build(sources: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(sources)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = out.glob("*.whl")
    return wheel


def inside(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_on_disk_and_no_other(checkout: Path, sources: Path, tmp_path: Path) -> None:
    names = inside(build(sources, tmp_path / "dist"))

    assert names == on_disk(checkout)
    assert "lowtide/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"lowtide", "lowtide_worker"}


def test_a_package_that_is_not_listed_is_noticed(sources: Path, tmp_path: Path) -> None:
    (sources / "connectors" / "forgotten").mkdir()
    (sources / "connectors" / "forgotten" / "__init__.py").write_text("", encoding="utf-8")

    names = inside(build(sources, tmp_path / "dist"))

    assert on_disk(sources) - names == {"lowtide/connectors/forgotten/__init__.py"}


@pytest.mark.slow
def test_every_module_is_imported_from_the_wheel_alone(sources: Path, tmp_path: Path) -> None:
    wheel = build(sources, tmp_path / "dist")
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in inside(wheel)
        if name.endswith(".py") and not name.endswith("__main__.py")
    )

    # -I and -S keep the checkout and the editable install out; what Lowtide needs comes from site-packages.
    command = [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(wheel), sysconfig.get_path("purelib"), *modules]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    assert ended.returncode == 0, ended.stderr


def test_the_wheel_carries_its_licence_and_its_command(sources: Path, tmp_path: Path) -> None:
    wheel = build(sources, tmp_path / "dist")

    with zipfile.ZipFile(wheel) as archive:
        meta = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        licence = archive.read(meta["licenses/LICENSE"]).decode()
        commands = archive.read(meta["entry_points.txt"]).decode()
    assert "Apache License" in licence
    assert "lowtide = lowtide.cli:main" in commands
