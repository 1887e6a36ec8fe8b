"""Who drives, and where."""
