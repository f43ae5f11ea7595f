"""A real Kubernetes control plane for tests, without containers; start at README.md beside this."""
