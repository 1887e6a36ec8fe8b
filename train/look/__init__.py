"""Evaluate, imagine, plan, demo."""
