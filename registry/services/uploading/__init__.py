"""Blobs that clients send: upload sessions through the service, and past it to the store."""
