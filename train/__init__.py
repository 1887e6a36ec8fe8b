"""Jobs: read a config, move data between `envs` and `agent`, write a run.

Each folder is a part that jobs share or a verb of the command line, and imports only from those named before
it: `run`, `data`, `language`, `pictures`, `drive`, `convert`, `tokenizer`, `world_model`, `online`, `evolve`,
`vla`, `baselines`, `collect`, `world_models`, `look`, `commands`. `cli` starts them; `agent` and `envs` never
import this package.
"""
