"""``tinker-local models tune``: the best GGUF type of a model for this machine, by speed and by quality.

tuner.py       ``Tuner``: measures types one after another, chooses one for each kind of work, stores it
candidates.py  a file of the model in another type, made for the measurement and removed after it
speed.py       ``RelativeSpeed``: two models timed alternately at each kind of work
quality.py     ``Quality``: KL divergence from a reference, and perplexity
text.py        the built-in text that quality is measured on

``store/tuned.py`` keeps the choice and opens it as ``NAME@score``, ``NAME@one`` and ``NAME@batch``.
"""
