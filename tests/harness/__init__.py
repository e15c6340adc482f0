"""What tests on containers stand on: real MinIO containers, real gateways, and every fault that a
test wants to see.

Strategy. pytest runs in a container that has the Docker socket. It builds the gateway's image from
the checkout, makes networks, attaches itself to them, and reaches everything by container address:
no port is published, so nothing can collide with a running stack. A `Stack` is a network with
`Node`s (MinIO) and `Gateway`s on it; when it is closed, the next one gets its network.

A run is several processes beside each other (pytest-xdist): much of a test's time is waiting. Each
has stacks of its own; the image is one.

What a run leaves behind is nothing. Each container, network and volume has labels that say which
stack it belongs to and in which container its run lives. `Lab.sweep` removes by label: a stack's
things when its fixture ends, a run's things when all its processes have ended (failed, Ctrl-C and
SIGTERM included), and at the start the things of runs whose own container is gone. So two runs
beside each other never touch each other's.

What costs most is to make containers: a test that can put right what it does to nodes uses the
stack whose faults are undone (`faulty`), and one that changes nothing the `shared` one.

The files, from the bottom up: `waiting`, `networks`, `engine`, `node`, `processes`, `gateway`,
`stack`, `fixtures`; beside them what groups of tests need: `http`, `checks`, `status`, `layout`,
`swarm`, `fakes`.
"""
