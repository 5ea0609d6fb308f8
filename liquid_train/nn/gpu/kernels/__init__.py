"""In Triton's language, which looks like Python."""
