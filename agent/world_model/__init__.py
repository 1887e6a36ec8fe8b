"""Models of driving behind one interface, `agent.world_model.interface.WorldModel`."""
