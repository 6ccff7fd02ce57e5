"""How fast this machine is, with a model and without us.

rounds.py     things that take turns, and the medians of their times
bare_loop.py  llama.cpp with nothing around it
speed.py      ours and the bare loop: scoring, and sampling 1, 8 and 32 at once
memory.py     bytes of weights that a token needs, and how fast memory can be read
threads.py    the same work by other numbers of threads
types.py      layers of the model's shape in other number formats
"""
