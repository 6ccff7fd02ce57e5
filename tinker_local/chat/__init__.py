"""Conversations as the text that a model was trained on.

templates      a model file's templates, by name: which one a conversation takes
conversation   messages, tools and documents as plain values; batches of conversations
tool_schema    Python functions as tools: JSON schemas from signature and docstring
template       runs a template: Jinja, as untrusted code
continuation   the text up to the end of the last message, for the model to continue
generation     the tag {% generation %}: which parts of the text the assistant says
marks          digits that stand for a place in the text while a template runs
limits         bounds on a template's time, memory and output
"""
