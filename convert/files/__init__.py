"""Files on this machine: where they are, how they are read safely, and how results are published.

models_directory.py  where converted models belong, and which names they may have
tinker_path.py       ``tinker://RUN/sampler_weights/NAME`` and its place in the models directory
hub_cache.py         snapshots of repositories in Hugging Face's cache
directory.py         a file of a directory from a stranger; links that lead out of it are refused
json_file.py         JSON from a stranger, within limits
parts.py             the files of a model that is split, ``NAME-00001-of-00003.gguf``
mmproj.py            the vision tower beside a model, ``mmproj-NAME.gguf``
whole_file.py        a file that is seen whole or not at all
publishing.py        a result appears under its name only when it is whole and on disk
workplace.py         hidden directories in which results are made; a killed process's is removed
lock.py              one process at a time in a directory
hashes.py            SHA-256 of stored files, as ``sha256sum`` writes them
sizes.py             numbers of bytes as people write them
"""
