"""The library kept in order: collected, scrubbed, adopted, backed up, carried elsewhere."""
