"""A deterministic street scene with exact labels, drawn by the program itself."""

from bsdnet.demo_scene.scene import DemoFrame, DemoScene

__all__ = ["DemoFrame", "DemoScene"]
