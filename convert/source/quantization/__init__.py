"""Quantized checkpoints, a module for each of config.json's ``quant_method``: their tensors, put together.

unpack.py              the one door: which method, and what no method reads
parts.py               tensors of the checkpoint, by their names and shapes
fp8.py                 FP8 with a scale for a block, a row or a tensor (fp8, fbgemm_fp8, mxfp8)
mxfp4.py               experts in MXFP4, as gpt-oss has them
compressed_tensors.py  integers, FP8 and NVFP4 of llm-compressor
modelopt.py            FP8 and NVFP4 of NVIDIA
nvfp4.py               the numbers of NVFP4, for the two above
gptq.py, awq.py        integers with inputs first
bitsandbytes.py        NF4, FP4 and INT8
"""
