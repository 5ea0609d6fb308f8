"""How fast a trained model infers, and whether it has become slower."""
