"""Measure Lowtide beside the bare library and the naive way: run.py [--quick] [--only NAME] [--out FILE].

Everything is generated from fixed seeds into a temporary folder, which is gone at the end. What is printed are ratios
of measurements that were taken side by side; seconds of one machine mean nothing on another.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

# Run as a script, the folder of this file would be on the path, and its parent not.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.case import Results  # noqa: E402
from benchmarks.cases import NAMES, load  # noqa: E402
from benchmarks.harness import Line, as_json, run_case, show  # noqa: E402

_SMOKE = 500


def main() -> None:
    """Run the cases and print the table. Missed targets are shown and are no failure; a wrong result is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: less than a minute")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only to see that every case still works")
    parser.add_argument("--only", choices=NAMES, action="append", help="only this case; may be repeated")
    parser.add_argument("--out", type=Path, help="write the figures and measurements to this JSON file as well")
    parser.add_argument("--folder", type=Path, help="where to put the data meanwhile (several GB without --quick)")
    options = parser.parse_args()
    lines: list[Line] = []
    results: dict[str, Results] = {}
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-", dir=options.folder) as folder:
        for name in NAMES:
            if options.only and name not in options.only:
                continue
            case = load(name)
            plan = case.quick if options.quick else case.full
            plan = plan.at_most(_SMOKE) if options.smoke else plan
            found, results[name] = run_case(case, Path(folder) / name, plan)
            lines += found
    print(show(lines))
    if options.quick or options.smoke:
        print("\nSmall sizes and one round: good for seeing that everything works, not for quoting.")
    if options.out:
        options.out.write_text(as_json(lines, results), encoding="utf-8")


if __name__ == "__main__":
    main()
