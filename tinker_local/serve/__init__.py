"""``tinker-local serve``: Tinker's SDK, OpenAI's clients and a browser, on the models of this machine.

application.py      the ASGI application: routes of each part, errors as answers
guard.py            who may ask, and how much
served_models.py    names -> clients, opened when they are first asked for
chunks.py           prompts in Tinker's form, as JSON has them
image_directory.py  the images on this machine that clients may name
metrics.py          ``/metrics`` and ``/healthz``
server.py           uvicorn on a thread
tinker_api/         Tinker's protocol
openai_api/         OpenAI's completions and chats
page/               what a browser shows at ``/``

Needs the extra ``serve``. ``app`` is for people with an ASGI server of their own:

>>> application = tinker_local.serve.app(tinker_local.ServiceClient())
"""

from tinker_local.serve.application import app
from tinker_local.serve.guard import LOOPBACK, Access, Limits
from tinker_local.serve.server import Server

__all__ = ["LOOPBACK", "Access", "Limits", "Server", "app"]
