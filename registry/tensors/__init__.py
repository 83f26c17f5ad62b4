"""Numbers of models: reads, converts and quantizes tensors, inside a process of its own.

The server never imports this package; it starts `python -m registry.tensors.child`, which gets its
sources as open files and writes one GGUF as a stream. Nothing here opens a path or a connection.
"""
