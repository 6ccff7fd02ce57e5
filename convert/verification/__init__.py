"""Proof that a result is right: llama.cpp loads it, tokenizes it as the source does, and scores it alike.

verify.py         llama.cpp loads the file's head and tokenizes the hard corpus
tokenization.py   the same ids as the source's tokenizer, or a known reason why not
compare.py        log-probabilities beside those of transformers
llama_process.py  llama.cpp in a process of its own, where an abort is an error message
"""
