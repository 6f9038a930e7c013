"""What people see: class masks on frames, the legend, and words on the picture."""

from bsdnet.rendering.panels import Corner, draw_hud
from bsdnet.rendering.renderer import Renderer, RenderStyle, View

__all__ = ["Corner", "RenderStyle", "Renderer", "View", "draw_hud"]
