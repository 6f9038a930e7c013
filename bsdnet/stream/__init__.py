"""From a source of frames to sinks of results."""
