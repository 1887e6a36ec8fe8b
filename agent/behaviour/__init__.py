"""Actions from states: policies and how they learn."""
