"""The page at ``/``: sample, branch, score and compare in a browser. No build, and nothing from elsewhere.

page.py          the routes
index.html       the form, the panel of what runs, templates
page.css         layout; the colours of tokens are those of ``tinker_local.display``
page.js          reads the form, begins what is asked
prompt.js        a text or a conversation -> the prompt's token ids and pictures
pictures.js      pictures, chosen, dropped or pasted
server.js        requests, and streams of server-sent events
vocabulary.js    token ids -> what is shown of them
text.js          tokens in colour, reached by mouse and keyboard
inflow.js        tokens on their way from a stream to their cards
alternatives.js  the box with a token's alternatives
cards.js         one continuation or scored text each, and the numbers above it
code.js          the same request in Python and for curl
running.js       the panel of what runs
"""

from tinker_local.serve.page.page import routes

__all__ = ["routes"]
