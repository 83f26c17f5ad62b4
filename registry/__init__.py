"""A self-hosted model library: Ollama API, Ollama and OCI registry, one store by digest."""

__version__ = "0.1.0"

OLLAMA_API_VERSION = "0.33.0"
"""The Ollama version whose API is spoken: what `/api/version` answers, since clients compare it."""
