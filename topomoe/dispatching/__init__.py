"""Which replica serves each token-expert pair, and what crosses the network."""
