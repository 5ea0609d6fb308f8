"""The fast path within compiled modules."""
