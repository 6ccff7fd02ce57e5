"""What a GGUF file says, read and checked without llama.cpp."""
