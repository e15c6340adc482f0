"""Who the nodes are: which there are, where, and what their records say."""
