"""Pictures made of arrays: filmstrips, videos, plans, curves, comparisons of runs."""
