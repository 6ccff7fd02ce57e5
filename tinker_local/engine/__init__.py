"""The engine: one llama.cpp context kept busy."""
