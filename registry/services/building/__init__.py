"""New models: layered from files and models, converted and quantized."""
