"""A checkpoint's tokenizer files, read into the vocabulary that a GGUF file has.

vocabulary.py         the whole: reads what is there and gives the ``tokenizer.*`` keys
tokenizer_json.py     tokenizer.json, which decides where there is one
sentencepiece.py      tokenizer.model
tiktoken.py           tiktoken.model
token_table.py        what each of the three is read into
byte_level.py         byte-level BPE's characters for bytes
splits.py             which of llama.cpp's pre-tokenizers splits texts as tokenizer.json does
special_ids.py        the tokens that begin, end and pad a text
end_of_generation.py  the tokens that end a generation
chat_template.py      chat templates, a file or a field
oracle.py             the source's tokenizer, as transformers runs it with the ``tokenizers`` library
tokenizer_config.py   settings beside a tokenizer's own file that change the ids of a text
embedded.py           the tokenizer in a GGUF file: a tokenizer.json, run by that library
loaded.py             a program: llama.cpp's tokenizer on a file, in a process of its own
hard_corpus.py        texts on which tokenizers that are almost the same differ
"""
