"""The whole way in one go: real documents to a table of answers, a cost ledger and a report, with no cloud account.

The documents are the READMEs of the Python packages in this environment: real texts that nobody here wrote.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "demo-out"
NOTHING_TO_DO = 3


def main() -> int:
    root = Path(os.environ.setdefault("DEMO_ROOT", str(OUT)))
    os.environ["PACKAGES"] = sysconfig.get_path("purelib")
    job = str(HERE / "demo.yaml")
    page = root / "report.html"

    say("The plan: what will be read and asked, and what it will cost.")
    lowtide("plan", job)
    say("The run. It may be stopped at any time, even with kill -9: the same command goes on.")
    ended = lowtide("run", job, *sys.argv[1:], fine=(0, NOTHING_TO_DO))
    say("A few rows.")
    lowtide("show", job, "--rows", "6")
    lowtide("report", job, "--out", str(page))

    say("Read it all with pandas:")
    print("  import pandas as pd")
    print(f"  results = pd.read_parquet({str(root / 'tables' / 'results')!r})")
    print("  print(results[results.operation == 'topic'].groupby('label').size())")
    say("The report, to be opened in a browser:")
    print(f"  {page}")
    if ended == NOTHING_TO_DO:
        say("Nothing was bought this time: the same documents had been asked the same questions before.")
    return 0


def lowtide(*arguments: str, fine: tuple[int, ...] = (0,)) -> int:
    """Run the command as a user would; a code that is not `fine` ends the demo with it."""
    command = [sys.executable, "-m", "lowtide", *arguments]
    code = subprocess.run(command, check=False).returncode
    if code not in fine:
        sys.exit(code)
    return code


def say(words: str) -> None:
    """A line between two commands."""
    print(f"\n{words}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
