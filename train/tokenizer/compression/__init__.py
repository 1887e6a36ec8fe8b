"""Lossless compression of tokens: a model predicts each token, a range coder spends its surprise in bits."""
