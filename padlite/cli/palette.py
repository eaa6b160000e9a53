"""One fixed colour and one number per dimension, the same everywhere in a chat.

The colours are Okabe and Ito's, which people with any kind of colour vision tell apart; the small numbers say the same
without colour. Dimensions are known by their place only.
"""

from rich.style import Style

_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442", "#999999")
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def dimension_style(place: int) -> Style:
    """Return the style of the dimension at *place* (from 0); after eight the colours begin again, underlined."""
    return Style(color=_COLORS[place % len(_COLORS)], underline=place >= len(_COLORS))


def dimension_mark(place: int) -> str:
    """Return the mark of the dimension at *place* (from 0): a small number."""
    return str(place + 1).translate(_SUPERSCRIPT)
