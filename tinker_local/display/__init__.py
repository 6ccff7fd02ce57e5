"""Show people the log-probabilities of a text: in a terminal, on an HTML page, in a notebook.

Nothing here runs a model. A ``ScoredText`` holds tokens with their log-probabilities; the rest shows it:

scored_text.py  ``ScoredText`` and ``TextComparison``: the data
visible.py      make any text visible, control characters and half characters included
scale.py        from numbers to colours
detail.py       the lines shown about one token
terminal.py     output on a terminal, in colours
page.py         output as an HTML page
notebook.py     output of a response in a notebook
markup.py       HTML that page and notebook share
style.py        their style sheets
"""

from tinker_local.display.page import write_page
from tinker_local.display.scored_text import ScoredText, ScoredToken, TextComparison

__all__ = ["ScoredText", "ScoredToken", "TextComparison", "write_page"]
