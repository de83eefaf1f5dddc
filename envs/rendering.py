"""A small rasteriser for the environments' pictures, on the host."""

import numpy as np
from PIL import Image, ImageDraw

SIZE = 192
_SUPERSAMPLING = 3

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (30, 30, 30)
GREY: Colour = (170, 170, 170)
PALE: Colour = (226, 230, 236)
GREEN: Colour = (70, 170, 90)
PALE_GREEN: Colour = (190, 228, 196)
BLUE: Colour = (45, 95, 200)
ORANGE: Colour = (235, 140, 40)


class Canvas:
    """A picture of a rectangle of the plane, x to the right and y upwards, drawn in world coordinates."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float], background: Colour = WHITE):
        """Show x_range times y_range as large as fits the square, in its middle, at one scale for both axes."""
        side = SIZE * _SUPERSAMPLING
        self._image = Image.new("RGB", (side, side), background)
        self._draw = ImageDraw.Draw(self._image)
        self._scale = side / max(x_range[1] - x_range[0], y_range[1] - y_range[0])
        self._centre = np.array([sum(x_range) / 2, sum(y_range) / 2])
        self._middle = side / 2

    def _pixels(self, points) -> list[tuple[float, float]]:
        offsets = (np.asarray(points, float).reshape(-1, 2) - self._centre) * self._scale
        return [(self._middle + x, self._middle - y) for x, y in offsets]

    def line(self, points, colour: Colour, width: float = 2.0) -> None:
        """Join points (P, 2); `width` in pixels of the finished picture."""
        self._draw.line(self._pixels(points), fill=colour, width=round(width * _SUPERSAMPLING), joint="curve")

    def disc(self, centre, radius: float, colour: Colour, outline: Colour | None = None) -> None:
        """Fill a circle; centre (2,) and radius in world units."""
        ((x, y),) = self._pixels(centre)
        r = radius * self._scale
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=outline, width=_SUPERSAMPLING)

    def box(self, low, high, colour: Colour) -> None:
        """Fill the rectangle between two corners (2,)."""
        (x0, y0), (x1, y1) = self._pixels([low, high])
        self._draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=colour)

    def text(self, position, text: str, colour: Colour) -> None:
        """Write a short text with its middle at position (2,)."""
        ((x, y),) = self._pixels(position)
        self._draw.text((x, y), text, fill=colour, anchor="mm", font_size=11 * _SUPERSAMPLING)

    def frame(self) -> np.ndarray:
        """The finished picture, (SIZE, SIZE, 3) uint8."""
        return np.asarray(self._image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def caption(frame: np.ndarray, text: str) -> np.ndarray:
    """Write a line of text into the upper left corner of a picture (H, W, 3) uint8; returns a new one."""
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).text((5, 3), text, fill=BLACK, font_size=12)
    return np.asarray(image)
