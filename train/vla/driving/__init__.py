"""Driving as told: demonstrations, trials on tracks and routes, and how well they did."""
