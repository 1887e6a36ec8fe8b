"""The commands of the command line, one module for each group; `add(group)` of each adds its parsers."""
