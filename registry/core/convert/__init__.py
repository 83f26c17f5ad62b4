"""From a checkpoint of safetensors files to the plan of a GGUF: keys, tensors, whence their bytes.

Pure: files come in as bytes and header entries, a plan goes out. Nothing here reads tensor data;
`registry/tensors/checkpoint.py` does, as the plan says. An architecture is one module of
`architectures/`, mostly tables.

Source: spec inference-and-gguf 8, 9.
"""
