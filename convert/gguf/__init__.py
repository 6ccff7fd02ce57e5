"""GGUF files, read and written; knows nothing of model families.

source.py        the head of a file that is there
head.py          the head of a file that is written: metadata and where each tensor lies
target.py        a tensor that is to be written, and what it is made of
file_types.py    the types of files, ``q4_k_m``, and how they show in names
tensor_types.py  the number format of each tensor, given the file's type
encoding.py      numbers to bytes, rounded bit for bit as ggml rounds
output.py        one model's file or files: heads first, then each tensor as it is made
"""
