"""The engine: requests in, futures out. Knows no file formats and no ctypes.

engine.py            opens a model, and takes requests from any thread
loop.py              the engine's thread: schedule, run, advance, finish
scheduler.py         chooses the next tokens, and who holds which room: waiting, prefilling, running
request.py           requests of a client, their outcomes, and a limit on those that wait
image.py             images in prompts: found by content, encoded once
logit_rule.py        biases and penalties: what changes the logits that a sample draws from
token_feed.py        tells a user's callback of drawn tokens, while the engine goes on
sequence.py          a request at work: its prompt and its samples
step.py              the scheduler's plan for one batch
cells.py             the account of KV sequences and cells
prefix_cache.py      the prefixes in the cells: a radix tree
runner.py            runs a step: fills a batch, decodes it, and reads its logits
scores.py            log-probabilities of prompt tokens, and those that are wanted
own_kernels.py       which parts of llama.cpp's graphs our kernels compute; batch invariance
sharing.py           cores and memory, which the contexts of a process share

To learn the engine, read loop.py, scheduler.py, sequence.py, step.py and runner.py, in this order.
"""
