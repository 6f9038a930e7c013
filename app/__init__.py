"""The window: bsdnet-view."""
