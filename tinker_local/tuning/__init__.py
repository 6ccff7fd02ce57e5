"""Which GGUF type of a model is best on this machine: what types cost in time and in quality."""
