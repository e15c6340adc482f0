"""Where the nodes are listed: what says which there are, where they are reached, and with which keys."""
