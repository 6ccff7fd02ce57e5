"""What a model thinks of a text, for people to look at: in a terminal, on a page, in a notebook.

Nothing here computes or knows clients: a ``Reading`` holds tokens, log-probabilities and alternatives,
and the other modules show it.
"""

from tinker_local.display.page import write_page
from tinker_local.display.reading import Comparison, Reading, Token

__all__ = ["Comparison", "Reading", "Token", "write_page"]
