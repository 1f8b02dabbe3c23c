"""Parameter-graph dataset -> trained metanetwork."""
