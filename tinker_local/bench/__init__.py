"""``tinker-local bench``: the speed of this machine, with our engine and with bare llama.cpp.

report.py     ``measure`` runs all measurements; ``BenchReport`` holds them and recommends settings
speed.py      our engine and the bare loop: scoring, and sampling 1, 8 and 32 at once
threads.py    the bare loop with different numbers of threads
types.py      the bare loop over layers of the model's shape in different number formats
memory.py     bytes of weights that a decoded token reads, and the bandwidth of main memory
bare_loop.py  the bare loop: ``llama_decode`` with nothing around it
rounds.py     candidates take turns in rounds; medians of their times
"""
