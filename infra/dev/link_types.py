"""Lay out the package as it is installed, in symlinks, for tools that know folders only: link_types.py FOLDER.

Setuptools maps `connectors/` to `lowtide.connectors`, and so on. mypy and import-linter look for `lowtide/connectors/`.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def wanted(target: Path) -> dict[Path, str]:
    """Each symlink of the layout, with what it points to, relative to itself."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    mapping: dict[str, str] = pyproject["tool"]["setuptools"]["package-dir"]
    links: dict[Path, str] = {}
    for package, folder in mapping.items():
        place = target.joinpath(*package.split("."))
        inside = {ROOT / other for other in mapping.values() if other.startswith(f"{folder}/")}
        # The package that others are mapped into is linked file by file, so that there is a real folder to put them in;
        # and the folder that another package lies in, so that this one is not found twice.
        if inside or any(other.startswith(package + ".") for other in mapping):
            sources = [
                path for path in sorted((ROOT / folder).iterdir()) if path.name != "__pycache__" and path not in inside
            ]
            links |= {place / path.name: os.path.relpath(path, place) for path in sources}
        else:
            links[place] = os.path.relpath(ROOT / folder, place.parent)
    return links


def main(folder: str) -> None:
    """Make the folder hold these symlinks and no others; what is right already is not touched."""
    target = Path(folder).absolute()
    links = wanted(target)
    for path in [path for path in target.rglob("*") if path.is_symlink()]:
        if str(path.readlink()) != links.get(path):
            path.unlink()
    for place, source in links.items():
        if not place.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source)


if __name__ == "__main__":
    main(sys.argv[1])
