"""Policies to drive with: our own, others by LeRobot's methods, and what they are checked for and given."""
