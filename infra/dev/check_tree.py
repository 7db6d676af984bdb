"""Look through the files of the project for what must not be there: check_tree.py [FOLDER].

Paths of somebody's machine and package hosts, since what holds them works in one place only; merge marks; large files.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LARGEST = 512 * 1024

HOME = re.escape(str(Path.home()))

FORBIDDEN = {
    "the path of somebody's machine": re.compile(rf"(?:/root|/work|/Users/\w+|{HOME})/"),
    # Spelled so that this file does not match itself.
    "a package host": re.compile(r"\bpypi[.](?:org|python|io)|pythonhosted[.]|anaconda[.]org|npmjs[.](?:org|com)"),
    "a package index": re.compile(r"--(?:extra-)?index-url[ =]|--find-links[ =]|^\s*index-url\s*=", re.MULTILINE),
    "a mark of an unfinished merge": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}


def listed(root: Path) -> Iterator[Path]:
    """Every file that git tracks, or would if it were added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
    for name in sorted(set(names.decode().split("\0"))):
        path = root / name
        if name and path.is_file() and not path.is_symlink():
            yield path


def complaints(root: Path) -> Iterator[str]:
    """One line for each thing that must not be there."""
    for path in listed(root):
        name = path.relative_to(root)
        size = path.stat().st_size
        if size > LARGEST:
            yield f"{name}: {size:,} bytes, and {LARGEST:,} is the most: make it on the spot, or fetch it"
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for what, pattern in FORBIDDEN.items():
            for found in pattern.finditer(text):
                line = text.count("\n", 0, found.start()) + 1
                yield f"{name}:{line}: {found.group().strip()!r} is {what}"


def main(folder: str = ".") -> int:
    """Print the complaints; 1 if there are any."""
    found = list(complaints(Path(folder).resolve()))
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
