"""Work that processes share, and rows that no request waits for."""
