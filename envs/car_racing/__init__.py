"""The simulator's files in a folder of their own."""
