"""The command bsdnet-bench."""
