"""Models from and to other registries."""
