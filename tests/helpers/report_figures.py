"""What is written in the figures of a report."""

import re


def words_of_figures(page: str) -> list[set[str]]:
    """Titles, labels and legends of every figure of a page, in order.

    Matplotlib draws letters as paths and leaves each text in a comment beside them.
    """
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    return [set(re.findall(r"<!-- (.*?) -->", figure, re.DOTALL)) for figure in figures]


def figures_with(page: str, beginning: str) -> list[set[str]]:
    """Words of the figures that hold a text with such a beginning."""
    return [
        words for words in words_of_figures(page) if any(w.startswith(beginning) for w in words)
    ]
