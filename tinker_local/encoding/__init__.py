"""Texts to token ids and back, with the arguments of transformers' tokenizers.

encoder           texts to ids: cut, padded, as lists or tensors
vocabulary        ids to texts, tokens by name, and the special ones
options           what each argument means, and which are refused
batch_encoding    what a tokenizer returns for a text or several
offsets           which characters of a text each token stands for
"""
