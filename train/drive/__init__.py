"""What a roll-out needs: environments, saved agents, drivers, and scores."""
