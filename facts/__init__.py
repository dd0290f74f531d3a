"""pyinfra facts, one module per tool: read-only, one cheap command each."""
