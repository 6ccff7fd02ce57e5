"""The source of a conversion: what a Hugging Face model directory holds; no weights are read yet.

checkpoint.py        the directory: its config.json and its tensors
config.py            settings of config.json, and a watch over those that nobody read
safetensors_file.py  the header of a safetensors file, every length and offset checked
tensor.py            a tensor and its place on disk
quantization/        quantized checkpoints: which tensors make a matrix, by ``quant_method``
packed_tensor.py     a matrix kept in several tensors, as if it were one
packed.py            the packed number formats themselves: FP8, MXFP4, NVFP4, integers, NF4
image_processor.py   how an image becomes the numbers that a vision tower takes
model_card.py        licence and base model from README.md
fingerprint.py       one hash for the weights, whatever the shards and the file's type
"""
