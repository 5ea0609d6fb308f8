"""How fast the liquid networks are, beside ``ncps`` and PyTorch's own recurrent layers."""
