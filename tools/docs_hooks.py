"""What mkdocs calls while it builds the site: the gallery is made here, none of it is committed."""

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parents[1]))  # `mkdocs build` does not look there by itself
from tools import gallery

ROOT = Path(__file__).parents[1]
GALLERY = "gallery/index.md"
MATH = re.compile(r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the gallery's pages where the navigation names its overview."""
    config.nav = [_expanded(item) for item in config.nav or []]
    return config


def _expanded(item: Any) -> Any:
    if item != {"Gallery": GALLERY}:
        return item
    return {"Gallery": list(gallery.pages())}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the gallery's pages, and the pictures that lie beside the scripts that made them."""
    for path, text in gallery.pages().items():
        files.append(File.generated(config, path, content=text))
    for picture in sorted((ROOT / "benchmarks").rglob("*.svg")):
        path = f"pictures/{picture.parent.name}/{picture.name}"
        files.append(File.generated(config, path, content=picture.read_bytes()))
    return files


def on_page_content(content: str, **given: Any) -> str:
    """Write formulas as MathML, which browsers draw by themselves."""
    del given
    return MATH.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    display = "block" if found[2] == "[" else "inline"
    return convert(html.unescape(found[3]).strip(), display=display)
