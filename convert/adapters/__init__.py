"""LoRA adapters as Tinker and PEFT save them, and the base models that they change.

checkpoint.py    an adapter's directory: its settings and factors
settings.py      adapter_config.json: rank, alpha and base
archive.py       a tar archive of such a directory, unpacked safely
base_lookup.py   the base's file or directory, given a path or a name
base.py          the base: which checkpoint's tensor each tensor of its GGUF file is made of
blueprint.py     the same told from the head of a GGUF file alone
updates.py       which weights of the base an adapter changes
factors.py       the two factors of one weight, A and B
lora_tensors.py  the factors as tensors of a GGUF adapter
merged.py        weights with the updates added, for ``--merge``
"""
