"""Numbers and tables as the documents have them."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal


def fixed(value: float, digits: int = 1) -> str:
    """Round to so many digits as one does by hand: results hold rounded decimals, whose halves go up."""
    # The sum turns -0.0 into 0.0.
    return str(Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0)


def signed(value: float, digits: int = 1) -> str:
    """As `fixed`, with a sign in any case."""
    text = fixed(value, digits)
    return text if text.startswith("-") else f"+{text}"


def percent(share: float, digits: int = 1) -> str:
    """Write a share of 0 to 1 in per cent, without the sign for it."""
    return fixed(100 * share, digits)


def power(value: float) -> str:
    """Write 0.001 as 1e-3."""
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a table of GitHub's Markdown; an empty cell stays one blank wide."""
    titles = list(header)
    return "\n".join([_line(titles), "|" + "---|" * len(titles), *map(_line, rows)])


def _line(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
