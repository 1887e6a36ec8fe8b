"""Training of image tokenizers, and episodes as tokens."""
