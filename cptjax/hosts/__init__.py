"""A run on several hosts, as seen from outside the training: who belongs to it, and who is lost. Nothing here imports JAX.

- finding: how the processes of a run find each other: environment, Slurm, GKE, a TPU VM's metadata
- alone: jobs that one process does, wherever several were started
- roll_call: who has come, who is heard of, who ended and how, and what follows from it: a state machine without sockets
- stations: its two sides: the supervisor of the first process keeps it, the others answer
- lines: its connections: JSON objects over TCP
- worker: what a training process tells its supervisor
- supervisor: the parent on every host that ends with the run when any part of it is lost
"""
