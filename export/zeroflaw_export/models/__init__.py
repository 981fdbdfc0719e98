"""The networks as export modules, and where their weights come from."""
