"""The offline bundle: built on a machine with a network, verified on any. Knows nothing of pyinfra."""
