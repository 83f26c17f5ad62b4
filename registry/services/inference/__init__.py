"""Models at work: which worker does it, who waits, what is sent to it and told of it."""
