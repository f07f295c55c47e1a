"""The frame of a chart as inline SVG: axes with ticks and units, and the text that a screen reader reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from training.reports.page.axes import Axis

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 18, 36


@dataclass(frozen=True)
class Frame:
    """The place of a chart: two axes on an area of `width` x `height` units, of which 400 fit a phone's width."""

    x: Axis
    y: Axis
    x_name: str
    width: int = 400
    height: int = 230
    y_name: str = ""

    @property
    def left(self) -> float:
        """The left end of the x axis."""
        return _LEFT + (14 if self.y_name else 0)

    @property
    def right(self) -> float:
        """The right end of the x axis."""
        return self.width - _RIGHT

    @property
    def bottom(self) -> float:
        """Where the x axis lies."""
        return self.height - _BOTTOM

    @property
    def top(self) -> float:
        """The upper end of the y axis."""
        return _TOP

    def across(self, value: float) -> float:
        """Return where a value of the x axis lies."""
        return round(self.left + self.x.place(value) * (self.right - self.left), 1)

    def up(self, value: float) -> float:
        """Return where a value of the y axis lies."""
        return round(self.bottom - self.y.place(value) * (self.bottom - self.top), 1)

    def drawn(self, title: str, content: Sequence[Markup]) -> Markup:
        """Return the whole picture, `content` between grid and frame; `title` is for those who cannot see it."""
        parts = [
            Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(self.width, self.height, title),
            *(self._row(value, text) for value, text in self.y.ticks),
            *(self._column(value, text) for value, text in self.x.ticks),
            Markup('<path class="axis" d="M{0} {1}V{2}H{3}"/>').format(self.left, self.top, self.bottom, self.right),
            Markup('<text class="name" x="{}" y="{}">{}</text>').format(
                (self.left + self.right) / 2, self.height - 4, self.x_name
            ),
            self._y_name(),
            *content,
            Markup("</svg>"),
        ]
        return Markup("").join(parts)

    def _row(self, value: float, text: str) -> Markup:
        y = self.up(value)
        return Markup('<path class="grid" d="M{} {}H{}"/><text class="row" x="{}" y="{}">{}</text>').format(
            self.left, y, self.right, self.left - 6, round(y + 4, 1), text
        )

    def _column(self, value: float, text: str) -> Markup:
        x = self.across(value)
        return Markup('<path class="tick" d="M{} {}v4"/><text class="column" x="{}" y="{}">{}</text>').format(
            x, self.bottom, x, self.bottom + 17, text
        )

    def _y_name(self) -> Markup:
        if not self.y_name:
            return Markup("")
        middle = (self.top + self.bottom) / 2
        return Markup('<text class="name" transform="translate(12 {}) rotate(-90)">{}</text>').format(
            middle, self.y_name
        )


def line(points: Sequence[tuple[float, float]], css_class: str) -> Markup:
    """Return a polyline through places on the picture."""
    return Markup('<polyline class="{}" points="{}"/>').format(css_class, " ".join(f"{x:g},{y:g}" for x, y in points))


def dot(x: float, y: float, css_class: str, title: str, radius: float = 3) -> Markup:
    """Return a round mark that says `title` under the pointer."""
    return Markup('<circle class="{}" cx="{:g}" cy="{:g}" r="{:g}"><title>{}</title></circle>').format(
        css_class, x, y, radius, title
    )
