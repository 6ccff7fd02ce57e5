"""GGUF files, read and written; knows nothing of model families.

file.py          the head of a file, read: the one reader of the format, and its limits
arrays.py        arrays of metadata; a vocabulary of 150,000 texts is taken apart by numpy
tensor_info.py   what a head says of a tensor
formats.py       the number formats of tensors, enum ggml_type
head.py          the head of a file, written
target.py        a tensor that is to be written, and what it is made of
file_types.py    the types of files, ``q4_k_m``, and how they show in names
tensor_types.py  the number format of each tensor, given the file's type
encoding.py      numbers to bytes, rounded bit for bit as ggml rounds
mmproj.py        the vision tower that belongs to a model's file
output.py        one model's file or files: heads first, then each tensor as it is made
"""
