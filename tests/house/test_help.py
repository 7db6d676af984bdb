"""`lowtide --help` answers at once: nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = {
    "aiobotocore", "asyncio", "boto3", "botocore", "fastapi", "fsspec", "httpx", "httpx2", "jinja2", "jsonschema_rs",
    "kreuzberg", "numpy", "obstore", "openai", "pandas", "prefect", "pyarrow", "pydantic", "pygal", "rich", "s3fs",
    "safetensors", "sqlalchemy", "tokenizers", "yaml",
}  # fmt: skip

TRIES = 7
TIMES_BARE = 20
"""What 0.3 s is to a bare interpreter's 15 ms: a slow or busy machine slows both."""


def lowtide(*arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", "from lowtide.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def imported(*arguments: str) -> set[str]:
    """The top-level packages that a command imports."""
    noted = lowtide(*arguments, flags=("-X", "importtime")).stderr
    names = {line.rsplit("|", 1)[1].strip() for line in noted.splitlines() if line.startswith("import time:")}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    names = imported(*arguments)

    assert "lowtide" in names
    assert not names & HEAVY


def test_help_is_as_quick_as_an_interpreter_allows() -> None:
    def seconds(*command: str) -> float:
        before = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, timeout=120, check=True)
        return time.perf_counter() - before

    bare, helped = [], []
    for _ in range(TRIES):
        bare.append(seconds("-c", "pass"))
        helped.append(seconds("-c", "from lowtide.cli import main; main()", "--help"))

    assert min(helped) < TIMES_BARE * min(bare)
