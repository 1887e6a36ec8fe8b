"""Jobs: read a config, move data between `envs` and `agent`, write a run.

Reading order: `options` (how a config is put together), `run` (the folder a job writes), `checkpoint` (how it
stops and goes on), `tracking` and `progress` (what it tells while it works), then the jobs, and `cli`, which
starts them. `agent` and `envs` never import this package.
"""
