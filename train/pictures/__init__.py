"""Filmstrips, videos, plans and curves."""
