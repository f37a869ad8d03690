"""Box-based refinement: a detector on the output of a network, and the network refined through it (sections 3, 4)."""
