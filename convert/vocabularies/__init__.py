"""The files that tokenizers come in, each read into a table of tokens."""
