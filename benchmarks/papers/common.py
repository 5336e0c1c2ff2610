"""What the scripts of this folder share: a Markdown table and a picture beside the script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl


def write_table(
    script: str, about: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Print a table, and write it beside the script (give `__file__`) under what it is about."""
    lines = [" | ".join(map(str, row)) for row in (columns, ["---"] * len(columns), *rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    Path(script).with_suffix(".md").write_text(f"{about.strip()}\n\n{table}\n", encoding="utf-8")
    print(table)


def save(script: str, figure: Any) -> None:
    """Write a figure beside the script, as .svg that is the same each time."""
    with mpl.rc_context({"svg.hashsalt": "stepsize", "svg.fonttype": "none"}):
        figure.savefig(Path(script).with_suffix(".svg"), metadata={"Date": None})
