"""The one door to llama.cpp and ggml: the only package that imports ``llama_cpp``."""
