"""GGUF files checked before llama.cpp opens them, which would end the process on some wrong files.

file.py              a file by its path: its head, read by ``convert.gguf.file``, and its version
parts.py             the heads of all files of a model
model_check.py       a model's settings and tensors
layer_check.py       the tensors of its layers
vocabulary_check.py  its vocabulary
adapter_check.py     a LoRA against its base
tower_check.py       a tower, which reads images
architectures.py     architectures with rules of their own
limits.py            what an architecture allows less than others do
"""
