"""Small graphics as inline SVG: coloured by the style sheet, so they follow the theme, and with words for people who
do not see them.

Every function escapes what it is given; none needs a script or an outside file.
"""

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

Point = tuple[float, float]


def interval(
    value: float | None, low: float | None, high: float | None, limit: float | None, words: str, reach: float = 0.12
) -> Markup:
    """A difference with its bounds around zero, and the limit it must stay below; the axis ends at `reach`."""
    if value is None:
        return Markup("")
    width, middle = 160.0, 10.0

    def at(x: float) -> float:
        return round((min(reach, max(-reach, x)) + reach) / (2 * reach) * width, 1)

    parts = [_line(0, middle, width, middle, "axis"), _line(at(0), 2, at(0), 18, "zero")]
    if limit is not None and abs(limit) > 0:
        parts.append(_line(at(limit), 2, at(limit), 18, "limit"))
    if low is not None and high is not None:
        parts.append(_line(at(low), middle, max(at(high), at(low) + 1), middle, "band"))
    parts.append(_shape("circle", "mark", cx=at(value), cy=middle, r=3.5))
    return _svg(width, 20, parts, words, "interval")


def lines(
    series: Sequence[tuple[str, Sequence[Point]]],
    words: str,
    *,
    band: Sequence[tuple[float, float, float]] = (),
    low: float | None = None,
    high: float | None = None,
    across: str = "",
    up: str = "",
) -> Markup:
    """Lines over numbers, at most three, with an optional band `(x, low, high)` behind them, and axes."""
    points = [point for _, line in series for point in line] + [(x, y) for x, a, b in band for y in (a, b)]
    if not points:
        return Markup("")
    frame = _Frame([x for x, _ in points], [y for _, y in points], low, high)
    parts = frame.axes(across, up)
    if band:
        edge = [(x, top) for x, _, top in band] + [(x, bottom) for x, bottom, _ in reversed(band)]
        parts.append(Markup('<polygon class="band" points="{}"/>').format(frame.points(edge)))
    for number, (name, line) in enumerate(series, 1):
        parts.append(Markup('<polyline class="line s{}" points="{}"/>').format(number, frame.points(line)))
        if len(line) == 1:
            x, y = frame.place(line[0])
            parts.append(Markup('<circle class="dot s{}" cx="{}" cy="{}" r="3"/>').format(number, x, y))
        if len(series) > 1:
            parts.append(_text(frame.left + 8 + 150 * (number - 1), 12, name, f"key s{number}"))
    return _svg(frame.width, frame.height, parts, words, "chart")


def curve(points: Sequence[tuple[str, float, float]], chosen: str, limit: float | None, words: str,
          across: str = "", up: str = "") -> Markup:  # fmt: skip
    """Points `(name, score of the new task, drop of the prior ones)`, the chosen one marked."""
    ys = [y for _, _, y in points] + ([limit] if limit is not None else [])
    frame = _Frame([x for _, x, _ in points], ys, None, None, 0.06)
    parts = frame.axes(across, up)
    if limit is not None:
        _, y = frame.place((frame.xs[0], limit))
        parts.append(_line(frame.left, y, frame.width - 8, y, "limit"))
    for name, x, y in sorted(points, key=lambda point: point[0] == chosen):
        left, top = frame.place((x, y))
        kind = "chosen" if name == chosen else "dot"
        parts.append(
            Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}: {:.3f}, {:+.3f}</title></circle>').format(
                kind, left, top, 6 if name == chosen else 3.5, name, x, y
            )
        )
        if name == chosen:
            anchor = "end" if left > frame.width - 90 else "start"
            parts.append(_text(left + (-9 if anchor == "end" else 9), top - 7, name, "label", anchor))
    return _svg(frame.width, frame.height, parts, words, "chart")


def heat_map(names: Sequence[str], rows: Sequence[Sequence[float | None]], words: str) -> Markup:
    """A lower triangle of shares, one square each; equal neighbours are drawn as one, so large ones stay small."""
    size = len(names)
    cell = max(3.0, min(34.0, 720 / max(1, size)))
    squares: dict[int, list[str]] = {}
    parts: list[Markup] = []
    for j, row in enumerate(rows):
        levels, start = [_level(value) for value in row], 0
        for level, run in groupby(levels):
            width = len(list(run))
            across, down = width * cell - 0.5, cell - 0.5
            path = f"M{start * cell:g} {j * cell:g}h{across:g}v{down:g}h{-across:g}z"
            squares.setdefault(level, []).append(path)
            start += width
        if cell >= 24:
            parts += [
                _text(i * cell + cell / 2, j * cell + cell / 2 + 4, f"{value:.2f}"[1:] if value < 1 else "1",
                      "cell dark" if _level(value) > 5 else "cell", "middle")
                for i, value in enumerate(row)
                if value is not None
            ]  # fmt: skip
    squares_by_level = [
        Markup('<path class="h{}" d="{}"/>').format(level, "".join(d)) for level, d in sorted(squares.items())
    ]
    return _svg(size * cell, size * cell, [*squares_by_level, *parts], words, "heat")


def share_bar(done: int, total: int, words: str) -> Markup:
    """Progress of something, as a bar."""
    return Markup('<progress max="{}" value="{}" aria-label="{}"></progress>').format(max(1, total), done, words)


def bars(values: Sequence[tuple[str, float]], words: str) -> Markup:
    """Upright bars with their names below; for at most a few dozen."""
    top = max((value for _, value in values), default=0.0) or 1.0
    step = min(60.0, 600 / max(1, len(values)))
    parts = []
    for i, (name, value) in enumerate(values):
        height = round(100 * value / top, 1)
        parts.append(
            Markup(
                '<rect class="bar" x="{:g}" y="{:g}" width="{:g}" height="{:g}"><title>{}: {:g}</title></rect>'
            ).format(i * step + 2, 110 - height, step - 4, height, name, value)
        )
        if step >= 30 or i % max(1, round(40 / step)) == 0:
            parts.append(_text(i * step + step / 2, 124, name, "tick", "middle"))
    return _svg(max(step, step * len(values)), 130, parts, words, "chart")


def lanes(rows: Sequence[tuple[str, str | None]], main: Sequence[str]) -> list[Markup]:
    """The graph beside a list of versions `(name, what it was made on)`, newest first: a piece for each row.

    `main` is the line that runs straight down on the left, newest first; the first of it is marked.
    """
    line = {*main}
    waits: list[str | None] = [None]  # by lane: the version that its line goes down to
    pieces: list[tuple[list[Markup], int]] = []
    for name, parent in rows:
        here = [at for at, goal in enumerate(waits) if goal == name]
        free = (at for at, goal in enumerate([*waits, None]) if at and goal is None)
        lane = 0 if name in line else here[0] if here else next(free)
        waits += [None] * (lane + 1 - len(waits))
        parts = [_line(_lane(at), 0, _lane(at), LANE_HEIGHT, "rail") for at, goal in enumerate(waits)
                 if goal not in (None, name)]  # fmt: skip
        parts += [_bend(at, 0, lane, LANE_HEIGHT / 2) for at in here]
        for at in here:
            waits[at] = None
        if parent is not None:
            target = next((at for at, goal in enumerate(waits) if goal == parent), lane) if name not in line else lane
            parts.append(_bend(lane, LANE_HEIGHT / 2, target, LANE_HEIGHT))
            waits[target] = parent
        kind = "node chosen" if main and name == main[0] else "node" if name in line else "node aside"
        parts.append(_shape("circle", kind, cx=_lane(lane), cy=LANE_HEIGHT / 2, r=5))
        pieces.append((parts, len(waits)))
    width = 6 + 14.0 * max((count for _, count in pieces), default=1)
    return [_svg(width, LANE_HEIGHT, parts, "", "lanes") for parts, _ in pieces]


LANE_HEIGHT = 36.0


def _lane(number: int) -> float:
    return 10 + 14.0 * number


def _bend(lane: int, top: float, other: int, bottom: float) -> Markup:
    """A line down, from one lane to another or straight."""
    left, right, middle = _lane(lane), _lane(other), (top + bottom) / 2
    path = f"M{left:g} {top:g} C{left:g} {middle:g} {right:g} {middle:g} {right:g} {bottom:g}"
    return Markup(f'<path class="rail" d="{path}"/>')  # noqa: S704 - numbers alone


def _level(value: float | None) -> int:
    """Shade of a share: 0 to 10, or 11 for unknown."""
    return 11 if value is None else round(10 * value)


class _Frame:
    """Axes of a chart: from numbers to places in it."""

    width, height, left, bottom, top = 560.0, 220.0, 64.0, 34.0, 20.0

    def __init__(
        self, xs: Sequence[float], ys: Sequence[float], low: float | None, high: float | None, air: float = 0.0
    ) -> None:
        self.xs = _spread(min(xs), max(xs), air)
        self.ys = _spread(min(ys) if low is None else low, max(ys) if high is None else high)

    def place(self, point: Point) -> Point:
        """Place of a point in the picture."""
        (x0, x1), (y0, y1) = self.xs, self.ys
        x = self.left + (point[0] - x0) / (x1 - x0) * (self.width - self.left - 12)
        y = self.height - self.bottom - (point[1] - y0) / (y1 - y0) * (self.height - self.bottom - self.top)
        return round(x, 1), round(y, 1)

    def points(self, line: Sequence[Point]) -> str:
        """As SVG lists them."""
        return " ".join(f"{x:g},{y:g}" for x, y in map(self.place, line))

    def axes(self, across: str, up: str) -> list[Markup]:
        """Axes with their ends and middle named."""
        base, parts = self.height - self.bottom, []
        for y in (self.ys[0], sum(self.ys) / 2, self.ys[1]):
            _, top = self.place((self.xs[0], y))
            parts += [
                _line(self.left, top, self.width - 8, top, "grid"),
                _text(self.left - 6, top + 4, _tick(y), "tick", "end"),
            ]
        for x in self.xs:
            left, _ = self.place((x, self.ys[0]))
            parts.append(_text(left, base + 14, _tick(x), "tick", "middle"))
        parts.append(_text((self.left + self.width) / 2, self.height - 4, across, "title", "middle"))
        if up:
            middle = (base + self.top) / 2
            parts.append(
                Markup(
                    '<text class="title" text-anchor="middle" transform="rotate(-90 12 {:g})" x="12" y="{:g}">{}</text>'
                ).format(middle, middle, up)
            )
        return parts


def _spread(low: float, high: float, share: float = 0.04) -> Point:
    """A range that has a width, with some air as a share of it."""
    if high > low:
        air = share * (high - low)
        return low - (air if low not in (0.0, 1.0) else 0), high + (air if high not in (0.0, 1.0) else 0)
    return low - 0.5, high + 0.5


def _tick(value: float) -> str:
    text = f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return _shape("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)


def _shape(tag: str, kind: str, **places: float) -> Markup:
    """An element of names of ours and numbers alone, which need no escaping: there are hundreds in a picture."""
    numbers = " ".join(f'{name}="{value:g}"' for name, value in places.items())
    return Markup(f'<{tag} class="{kind}" {numbers}/>')  # noqa: S704 - see above


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _svg(width: float, height: float, parts: Sequence[Markup], words: str, kind: str) -> Markup:
    role = Markup('role="img" aria-label="{}"').format(words) if words else Markup('aria-hidden="true"')
    return Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}" {}>{}</svg>').format(
        kind, width, height, width, height, role, Markup("").join(parts)
    )
