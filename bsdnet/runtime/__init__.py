"""Running a network: a frame in, labels, confidence and a drawn frame out."""
