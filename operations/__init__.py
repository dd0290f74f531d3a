"""pyinfra operations, one module per tool; each mirrors the module of the same name in `facts`."""
