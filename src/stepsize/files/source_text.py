"""A text with its syntax tree, and errors that say where in it they stand."""

import ast
import re
from typing import Final

from stepsize.errors import SpecError

_HOW: Final = "an expression has families, recipes, methods, >> and *, numbers and texts"


class SourceText:
    """The text of an expression."""

    def __init__(self, text: str) -> None:
        line = " ".join(text.splitlines())  # lines may be broken anywhere, as in a YAML block
        self._text = line.strip()
        self._first = len(line) - len(line.lstrip()) + 1

    def tree(self) -> ast.expr:
        """Read the text by Python's grammar; `SpecError` where it does not fit."""
        try:
            return ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            column = self._first + max((error.offset or 1) - 1, 0)
            raise SpecError(f"column {column}: {error.msg}{self._quotes()}") from None
        except ValueError as error:  # a null byte, or half of a surrogate pair
            raise SpecError(f"the expression is no text that Python reads: {error}") from None

    def wrong(self, node: ast.expr | ast.keyword, message: str) -> SpecError:
        """Give the error of a node, with its place."""
        before = self._text.encode()[: node.col_offset].decode(errors="replace")
        return SpecError(f"column {self._first + len(before)}: {message}")

    def refused(self, node: ast.expr | ast.keyword, cure: str = _HOW) -> SpecError:
        """Give the error of a node that has no place in an expression."""
        return self.wrong(node, f"{self.of(node)} is not allowed: {cure}")

    def _quotes(self) -> str:
        """Say what is missing where a length with a unit stands without quotes."""
        found = re.search(r"(?<![\w\"'.])[\d.]+(?:%|ep\b|tok\b|st\b|h\b)", self._text)
        return f'; a length with a unit is a text: "{found[0]}"' if found else ""

    def of(self, node: ast.AST) -> str:
        """Give the text of a node, shortened to what fits into a sentence."""
        text = ast.get_source_segment(self._text, node) or type(node).__name__
        line = " ".join(text.split())
        return line if len(line) <= 60 else f"{line[:57]}..."  # noqa: PLR2004 (half a line)
