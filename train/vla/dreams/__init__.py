"""Dreaming of recorded drives: variations to learn from, and a judge of what is proposed."""
