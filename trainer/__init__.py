"""Training: data sets, recipes, the loop, and the command bsdnet-train."""
