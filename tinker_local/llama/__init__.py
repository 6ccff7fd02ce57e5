"""llama.cpp and ggml: the only package that imports ``llama_cpp``.

aborting.py        ends what llama.cpp computes or loads
backend.py         starts llama.cpp, before anything else is asked of it
amx.py             keeps llama.cpp off AMX, where some builds end the process
log.py             llama.cpp's messages, sent to Python's logging
ggml.py            functions of ggml that llama-cpp-python does not bind
build.py           how the installed llama.cpp was built
llama.cmake        settings with which it compiles faster
devices.py         GPUs and other devices besides the CPU
machine.py         cores and memory of this machine
model.py           the weights and the vocabulary of a file
adapter.py         a LoRA over a model's weights
tower.py           what turns an image into embeddings, by libmtmd
mapped_files.py    whether model files were written to after they were opened
long_texts.py      texts that llama.cpp's tokenizer has no stack for
context_plan.py    how a context is to be made, and the memory that takes
context.py         a KV cache over a model's weights: decode a batch, read its logits
decode_batch.py    the tokens, or the embeddings, of one decode
graph_callback.py  our kernels inside llama.cpp's graphs

Three rules hold for everything that has a handle of llama.cpp:

Lifetimes. A Python object owns the handle, and a ``weakref.finalize`` frees it. The finalizer holds what
the handle depends on, so that goes last: a context holds its model and adapter, an adapter its model. All
who open the same file share one model or adapter, which is found by a weak reference.

Forks. A forked child has the memory of its parent and none of its threads. So a finalizer does nothing in a
process other than the one that made the handle: a thread of the parent may have been in the middle of using
it. Locks are made anew in the child, since a thread that does not exist there may have held them.

Order. ``start_backend`` comes before any list of devices or buffers and before any model.
"""
