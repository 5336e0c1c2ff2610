"""Runs the benchmarks; prints one table per subject and writes them to `results.md` beside it.

python benchmarks/run.py [--quick] [--only SECTION]

Only a full run writes the file.
"""

import argparse
import importlib
import pathlib
import time

import report
import torch

SECTIONS = {
    "steps": "One step of a scheduler",
    "curves": "Whole curves",
    "scalar": "One value",
    "resume": "Resuming at step 10,000,000",
    "optimizers": "One update of an optimizer",
    "range_test": "Finding the rate",
    "imports": "Importing",
    "commands": "The command line",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and shorter curves")
    parser.add_argument("--only", choices=list(SECTIONS), help="one section")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin, parts = time.monotonic(), []
    for name in [options.only] if options.only else SECTIONS:
        parts.append(f"## {SECTIONS[name]}\n")
        print(parts[-1])
        for table in importlib.import_module(name).tables(quick=options.quick):
            parts.append(table.markdown())
            print(parts[-1], flush=True)
    head = report.header(time.monotonic() - begin)
    print(head)
    if not (options.quick or options.only):
        text = "\n".join([head, *parts])
        (pathlib.Path(__file__).parent / "results.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
