"""OpenAI's completions and chats, in the forms that evaluation tools read.

fields.py       what a request may have, with limits
prompts.py      prompts: texts, ids, chunks, conversations, images
completions.py  ``completions``: prompts and answers
chat.py         ``chat/completions``
tokens.py       ``/tokenize``, ``/detokenize``, ``/tokenizer_info``
work.py         the requests to a model behind one HTTP request
choices.py      what answers are made of
logprobs.py     log-probabilities in three forms
pieces.py       tokens as text, stops taken out
reasoning.py    reasoning apart from content
endpoints.py    the routes: bodies in, answers and streams out

Fields are in README.md.
"""

from tinker_local.serve.openai_api.endpoints import PREFIXES, OpenAiApi

__all__ = ["PREFIXES", "OpenAiApi"]
