"""The models on this machine: names, files, checkpoints, and where they come from.

model_store.py        a name or a path becomes a file
known_model.py        names that can be asked for, and their files
catalog.py            the usual base models, from ``models/catalog.toml``
hub_cache.py          the GGUF files in Hugging Face's cache
mmproj.py             what a model reads: text, or images too
stored_checkpoint.py  what a ``tinker://`` path stands for
provenance.py         what a file says of where it comes from
tuned.py              the type that ``models tune`` chose for a kind of work
inventory.py          everything that is here
keeper.py             puts files in, takes them out, checks them

Four classes describe a model, and each knows more than the one before:

    CatalogEntry    a usual base model, here or not: its names, its license, how to get it
         |
         |  + the file of a package             GGUF file in the store or in the hub cache
         v                                                       |
    KnownModel      a name that can be asked for, and its file <-+
         |
         |  + what the file says, + Tuned       StoredCheckpoint (a tinker:// path)
         v                                                       |
    Holding         what is here and opens by its name <---------+

    Provenance      what a GGUF file says of itself: type, license, source, base, their hashes.
                    A Holding has one; ``weights`` compares an adapter's with that of its base.

``ModelStore.resolve`` needs a ``KnownModel`` only. ``inventory`` makes the ``Holding``s that commands list.
"""
