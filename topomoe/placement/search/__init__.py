"""Even shares: local search, annealing and a mixed-integer programme."""
