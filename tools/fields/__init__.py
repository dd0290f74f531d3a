"""Fields of Kubernetes' configuration documents, from the Go types that define them."""
