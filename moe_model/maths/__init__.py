"""What a model computes: plain torch functions, the definition of correct."""
