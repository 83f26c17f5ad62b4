"""Pure computation: values in, values out; nothing here waits, opens, reads clocks or is random."""
