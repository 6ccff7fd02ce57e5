"""The models on this machine: names, files, checkpoints, and where they come from.

known_model.py  names that can be asked for, and where each is to be had
catalog.py      the usual base models, from ``models/catalog.toml``
hub_cache.py    what Hugging Face's cache holds
checkpoint.py   what a ``tinker://`` path stands for
model_store.py  a name or a path becomes a file
tuned.py        the type that was found best for a kind of work
inventory.py    all that is there
keeper.py       puts files in, takes them out, checks them
provenance.py   what a file says of where it comes from
"""
