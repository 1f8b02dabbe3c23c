"""Zoo specification -> trained networks -> parameter-graph dataset. The commands: ``python -m pipeline --help``."""
