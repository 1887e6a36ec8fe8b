"""A config put together from its defaults, a YAML file and `--dotted.options`, each mistake one clear line.

Later wins: the defaults of the pydantic model, then the file, then the options of the command line. Values on
the command line are read as YAML, too. The same model gives the help text.
"""

from train.run.options.fields import Change, changes, flatten
from train.run.options.help import help_text
from train.run.options.layers import build, parse_overrides, validate
from train.run.options.marks import refuse_changes
from train.run.options.yaml_text import read_yaml, to_yaml

__all__ = [
    "Change",
    "build",
    "changes",
    "flatten",
    "help_text",
    "parse_overrides",
    "read_yaml",
    "refuse_changes",
    "to_yaml",
    "validate",
]
