"""A text with its syntax tree, and errors that say where in it they stand."""

import ast
from typing import Final

from stepsize.errors import SpecError

_HOW: Final = "an expression has families, recipes, methods, >> and *, numbers and texts"


class SourceText:
    """The text of an expression."""

    def __init__(self, text: str) -> None:
        self._text = text.strip().replace("\r\n", "\n").replace("\r", "\n")

    def tree(self) -> ast.expr:
        """Read the text by Python's grammar; `SpecError` where it does not fit."""
        try:
            return ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            where = self._place(error.lineno or 1, max((error.offset or 1) - 1, 0))
            raise SpecError(f"{where}: {error.msg}") from None
        except ValueError as error:  # a null byte, or half of a surrogate pair
            raise SpecError(f"the expression is no text that Python reads: {error}") from None

    def wrong(self, node: ast.expr | ast.keyword, message: str) -> SpecError:
        """Give the error of a node, with its place."""
        line = self._text.split("\n")[node.lineno - 1].encode()
        before = line[: node.col_offset].decode(errors="replace")
        return SpecError(f"{self._place(node.lineno, len(before))}: {message}")

    def refused(self, node: ast.expr | ast.keyword, cure: str = _HOW) -> SpecError:
        """Give the error of a node that has no place in an expression."""
        return self.wrong(node, f"{self.of(node)} is not allowed: {cure}")

    def _place(self, line: int, before: int) -> str:
        column = f"column {before + 1}"
        return f"line {line}, {column}" if "\n" in self._text else column

    def of(self, node: ast.AST) -> str:
        """Give the text of a node, shortened to what fits into a sentence."""
        text = ast.get_source_segment(self._text, node) or type(node).__name__
        line = " ".join(text.split())
        return line if len(line) <= 60 else f"{line[:57]}..."  # noqa: PLR2004 (half a line)
