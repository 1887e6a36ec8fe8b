"""A vision-language-action policy: pictures, an instruction and the vehicle's state to chunks of actions.

Reading order: `interface` (what every policy offers), `model` (its sizes, context and action expert),
`flow_matching` (how the expert learns and how chunks are drawn), `chunking` (how chunks are driven).
"""
