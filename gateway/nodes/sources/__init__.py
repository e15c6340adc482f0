"""The sources of nodes: what says which nodes there are, at which address, with which keys."""
