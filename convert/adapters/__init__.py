"""LoRA adapters as Tinker and PEFT save them: what they say, and which weights of a model they change."""
