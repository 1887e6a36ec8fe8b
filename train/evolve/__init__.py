"""Behaviour learnt in a frozen world model: CMA-ES or actor-critic on the features of a dream."""
