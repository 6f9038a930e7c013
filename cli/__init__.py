"""The command bsdnet-run."""
