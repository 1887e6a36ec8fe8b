"""Every job that drives and records."""
