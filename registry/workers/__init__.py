"""The worker: runs models in child processes. The library proper imports none of it but `app`."""
