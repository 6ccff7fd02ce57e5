"""Saved weights to GGUF. This version has the command's place but converts nothing yet."""
