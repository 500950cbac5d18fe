"""Draw one garment or accessory of the sample catalogue: a flat illustration on a transparent ground.

Shapes live on a square of 100 x 100 units, y downwards. A path is text: points "x,y" joined by straight lines; the
outline passes a point that ends in "~" smoothly. Most things are symmetric about x = 50, hence `joined` paths (one
half, which its mirror image completes) and `twin` ones (a sleeve, drawn a second time as its mirror image).
"""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Colour] = {
    "black": (46, 47, 53), "grey": (150, 154, 162), "white": (244, 242, 237), "beige": (222, 203, 170),
    "brown": (136, 92, 62), "red": (208, 58, 60), "orange": (238, 136, 58), "yellow": (245, 202, 78),
    "olive": (128, 134, 74), "green": (62, 146, 98), "teal": (44, 146, 152), "blue": (74, 130, 210),
    "navy": (44, 62, 110), "purple": (130, 90, 168), "pink": (241, 152, 178),
}  # fmt: skip
PATTERNS = ("plain", "striped", "checked", "dotted", "zigzag", "floral", "diamond")
WHITE, BLACK, METAL, GOLD, RUBBER = (255, 255, 255), (0, 0, 0), (190, 193, 200), (214, 178, 98), (242, 240, 234)
TABLES = ((196, 168, 138), (142, 160, 172), (170, 172, 150), (198, 180, 166))
SUPERSAMPLING = 3  # drawn this much larger, then scaled down: smooth edges


@dataclass(frozen=True)
class Look:
    """What is drawn. `seed` decides proportions and trim, so two drawings of one look show the same thing."""

    category: str
    colour: str
    pattern: str
    seed: str


@dataclass(frozen=True)
class Pose:
    """How it lies: rotation in degrees, clockwise; scale; shift of its centre in units."""

    rotation: float = 0.0
    scale: float = 1.0
    shift: Point = (0.0, 0.0)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Return `one` with `share` (0 to 1) of `other` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def is_dark(colour: Colour) -> bool:
    """Whether light ink reads better on `colour` than dark ink (by luma, ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 75


def ink(colour: Colour) -> Colour:
    """Return the tone of outlines and seams on `colour`: darker, or lighter where darker would not show."""
    return mix(colour, WHITE, 0.28) if is_dark(colour) else mix(colour, BLACK, 0.38)


def outline(path: str, joined: bool = False, closed: bool = True) -> list[Point]:
    """Turn a path into a polyline of cubic Bézier segments; corners have no handles, so they join straight."""
    knots = []
    for word in path.split():
        across, down = word.rstrip("~").split(",")
        knots.append((float(across), float(down), word.endswith("~")))
    if joined:
        knots += [(100 - x, y, smooth) for x, y, smooth in reversed(knots) if x != 50]
    handles = []
    for i, (_, _, smooth) in enumerate(knots):
        (ax, ay, _), (bx, by, _) = knots[i - 1], knots[(i + 1) % len(knots)]
        span = math.hypot(bx - ax, by - ay)
        handles.append(((bx - ax) / span, (by - ay) / span) if smooth else (0.0, 0.0))
    points = [knots[0][:2]]
    for i in range(len(knots) if closed else len(knots) - 1):
        j = (i + 1) % len(knots)
        (x0, y0, _), (x1, y1, _), (u0, v0), (u1, v1) = knots[i], knots[j], handles[i], handles[j]
        reach = 0.38 * math.hypot(x1 - x0, y1 - y0)  # 0.38 of the chord: four smooth points make nearly a circle
        steps = 10 if knots[i][2] or knots[j][2] else 1
        for step in range(1, steps + 1):
            t = step / steps
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            x = a * x0 + b * (x0 + reach * u0) + c * (x1 - reach * u1) + d * x1
            y = a * y0 + b * (y0 + reach * v0) + c * (y1 - reach * v1) + d * y1
            points.append((x, y))
    return points


class Pen:
    """Draws in units on a transparent canvas, in the look's cloth and tones."""

    def __init__(self, look: Look, pose: Pose, size: int) -> None:
        """Prepare a canvas of `size` x `size` pixels."""
        self.rng = random.Random(look.seed)  # noqa: S311
        self.colour = COLOURS[look.colour]
        contrasts = ["white", "navy", "black", "beige"]
        if is_dark(self.colour):
            contrasts = ["white", "beige", "yellow", "pink"]
        elif look.colour in ("white", "beige", "yellow"):
            contrasts = ["navy", "black", "brown"]
        self.trim = COLOURS[self.rng.choice(contrasts)]
        self.deep = mix(self.colour, WHITE, 0.12) if is_dark(self.colour) else mix(self.colour, BLACK, 0.22)
        self.pattern = look.pattern
        self.stretch = (self.vary(0.93, 1.03), self.vary(0.95, 1.03))
        self.unit = size / 100 * pose.scale
        self.centre = (size * (0.5 + pose.shift[0] / 100), size * (0.5 + pose.shift[1] / 100))
        self.turn = math.cos(math.radians(pose.rotation)), math.sin(math.radians(pose.rotation))
        self.canvas = Image.new("RGBA", (size, size), (*ink(self.colour), 0))
        self.draw = ImageDraw.Draw(self.canvas)
        self.cloths: dict[float, Image.Image] = {}

    def vary(self, low: float, high: float) -> float:
        """Return a number between `low` and `high` that belongs to this look."""
        return round(self.rng.uniform(low, high), 2)

    def move(self, dx: float, dy: float) -> None:
        """Shift what is drawn from now on, in units across and down the page."""
        self.centre = self.centre[0] + dx * self.unit, self.centre[1] + dy * self.unit

    def pixel(self, point: Point) -> Point:
        """Return where a point in units lies on the canvas."""
        x, y = (point[0] - 50) * self.stretch[0] * self.unit, (point[1] - 50) * self.stretch[1] * self.unit
        cos, sin = self.turn
        return self.centre[0] + x * cos - y * sin, self.centre[1] + x * sin + y * cos

    def shapes(self, path: str, joined: bool, twin: bool, closed: bool = True) -> list[list[Point]]:
        """Return the polyline of a path in pixels, and that of its mirror image if `twin`."""
        points = outline(path, joined, closed)
        return [[self.pixel(p) for p in points]] + ([[self.pixel((100 - x, y)) for x, y in points]] if twin else [])

    def panel(
        self, path: str, fill: Colour | None = None, *, joined: bool = False, twin: bool = False,
        edge: bool = True, weave: float = 1.0, opacity: float = 1.0,
    ) -> None:  # fmt: skip
        """Fill a closed path with a colour, or with the look's cloth at `weave` times its usual size; outline it."""
        for points in self.shapes(path, joined, twin):
            left, top = (max(0, int(min(axis))) for axis in zip(*points, strict=True))
            right, bottom = (min(self.canvas.width, int(max(axis)) + 2) for axis in zip(*points, strict=True))
            mask = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
            ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=round(255 * opacity))
            box = (left, top, left + mask.width, top + mask.height)
            self.canvas.paste(self.cloth(weave).crop(box) if fill is None else (*fill, 255), box, mask)
            if edge:
                self.stroke(points, ink(fill or self.colour), 0.7)

    def line(
        self, path: str, colour: Colour | None = None, width: float = 0.6, *, joined: bool = False,
        twin: bool = False, dashed: bool = False,
    ) -> None:  # fmt: skip
        """Draw an open path in `colour` (the ink of the look if None); `dashed` is a row of stitches."""
        for points in self.shapes(path, joined, twin, closed=False):
            for part in dashes(points, self.unit * 1.2) if dashed else [points]:
                self.stroke(part, colour or ink(self.colour), width)
            for x, y in (points[0], points[-1]) if width >= 1.5 else ():  # thick cords have round ends
                self.dot(x, y, width / 2, colour or ink(self.colour))

    def disc(self, x: float, y: float, radius: float, fill: Colour | None = None, *, edge: bool = True) -> None:
        """Draw a filled circle: a button, a dial."""
        self.panel(f"{x},{y - radius}~ {x + radius},{y}~ {x},{y + radius}~ {x - radius},{y}~", fill, edge=edge)

    def stroke(self, points: list[Point], colour: Colour, width: float) -> None:
        """Draw a polyline of pixels, `width` in units."""
        self.draw.line(points, (*colour, 255), max(1, round(width * self.unit)), joint="curve")

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a circle around a pixel, `radius` in units, without outline."""
        reach = radius * self.unit
        self.draw.ellipse((x - reach, y - reach, x + reach, y + reach), (*colour, 255))

    def cloth(self, weave: float) -> Image.Image:
        """Return a canvas of the look's pattern, which turns with the item."""
        if weave not in self.cloths:
            self.cloths[weave] = Image.new("RGBA", self.canvas.size, (*self.colour, 255))
            canvas, self.draw = self.draw, ImageDraw.Draw(self.cloths[weave])
            if self.pattern != "plain":
                PATTERN_PAINTERS[self.pattern](self, 9 * weave)
            self.draw = canvas
        return self.cloths[weave]


def dashes(points: list[Point], length: float) -> list[list[Point]]:
    """Cut a polyline into dashes of about `length` pixels with gaps as long."""
    stops = [points[0]]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        count = max(1, round(math.hypot(x1 - x0, y1 - y0) / length))
        stops += [(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count) for i in range(1, count + 1)]
    return [stops[i : i + 2] for i in range(0, len(stops) - 1, 2)]


def grid(period: float) -> list[float]:
    """Return the positions of a pattern that repeats every `period` units over the whole canvas."""
    return [50 + period * i for i in range(-round(75 / period), round(75 / period) + 1)]


def _stripes(pen: Pen, period: float) -> None:
    for y in grid(period):
        pen.stroke([pen.pixel((-30, y)), pen.pixel((130, y))], pen.trim, period * 0.38)


def _checks(pen: Pen, period: float) -> None:
    half = mix(pen.colour, pen.trim, 0.45)
    for z in grid(period):
        pen.stroke([pen.pixel((-30, z)), pen.pixel((130, z))], half, period / 2)
        pen.stroke([pen.pixel((z, -30)), pen.pixel((z, 130))], half, period / 2)
    for x in grid(period):
        for y in grid(period):
            pen.stroke([pen.pixel((x - period / 4, y)), pen.pixel((x + period / 4, y))], pen.trim, period / 2)


def _dots(pen: Pen, period: float) -> None:
    for row, y in enumerate(grid(period * 0.8)):
        for x in grid(period * 0.9):
            pen.dot(*pen.pixel((x + row % 2 * period * 0.45, y)), period * 0.2, pen.trim)


def _zigzags(pen: Pen, period: float) -> None:
    for y in grid(period * 1.1):
        points = [pen.pixel((x, y + (i % 2 - 0.5) * period * 0.55)) for i, x in enumerate(grid(period / 2))]
        pen.stroke(points, pen.trim, period * 0.22)


def _flowers(pen: Pen, period: float) -> None:
    rng = random.Random(pen.pattern)  # noqa: S311
    leaf = mix(COLOURS["green"], pen.colour, 0.25)
    heart = COLOURS["orange" if pen.trim == COLOURS["yellow"] else "yellow"]
    for row, y in enumerate(grid(period * 1.25)):
        for x in grid(period * 1.5):
            x0, y0 = x + (row % 2) * period * 0.75 + rng.uniform(-1, 1), y + rng.uniform(-1, 1)
            size, turn = period * rng.uniform(0.15, 0.21), rng.uniform(0, 6.28)
            pen.dot(*pen.pixel((x0 + size * 2.4, y0 + size * 2.2)), size * 0.7, leaf)
            pen.dot(*pen.pixel((x0 + size * 3.2, y0 + size * 2.8)), size * 0.5, leaf)
            for angle in (turn + k * math.tau / 5 for k in range(5)):
                petal = (x0 + size * 1.1 * math.cos(angle), y0 + size * 1.1 * math.sin(angle))
                pen.dot(*pen.pixel(petal), size * 0.85, pen.trim)
            pen.dot(*pen.pixel((x0, y0)), size * 0.62, heart)


def _diamonds(pen: Pen, period: float) -> None:
    wide, high, thin = period * 0.75, period * 1.1, mix(pen.colour, BLACK, 0.35)
    for row, y in enumerate(grid(high)):
        for x in grid(wide * 2):
            x0 = x + row % 2 * wide
            corners = [(x0, y - high), (x0 + wide, y), (x0, y + high), (x0 - wide, y)]
            if row % 2:
                pen.draw.polygon([pen.pixel(p) for p in corners], (*mix(pen.colour, pen.trim, 0.8), 255))
    for y in grid(high):
        for x in grid(wide * 2):
            pen.stroke([pen.pixel((x - wide, y - high)), pen.pixel((x + wide, y + high))], thin, 0.3)
            pen.stroke([pen.pixel((x + wide, y - high)), pen.pixel((x - wide, y + high))], thin, 0.3)


PATTERN_PAINTERS: dict[str, Callable[[Pen, float], None]] = {
    "striped": _stripes, "checked": _checks, "dotted": _dots, "zigzag": _zigzags, "floral": _flowers,
    "diamond": _diamonds,
}  # fmt: skip


def _t_shirt(pen: Pen) -> None:
    hem, sleeve = pen.vary(86, 91), pen.vary(40, 47)
    pen.panel("50,14.5~ 60,13 57,23 50,26~", pen.deep, joined=True)
    pen.panel(f"62,13 76,18~ 95,{sleeve} 81,{sleeve + 8} 69,35", twin=True)
    pen.line(f"92.8,{sleeve - 2.6} 79,{sleeve + 5}", dashed=True, twin=True)
    pen.panel(f"50,24~ 56,21~ 60,13 70,16~ 72.5,30 71.4,60~ 72,{hem} 50,{hem + 1}~", joined=True)
    pen.panel("50,24~ 56,21~ 60,13 62.6,13.6 57.8,23.4~ 50,27~ 42.2,23.4~ 37.4,13.6 40,13 44,21~", pen.deep)
    pen.line(f"72,{hem - 3} 50,{hem - 2}~", dashed=True, joined=True)
    pen.line("70.6,36 69.4,42~ 66,47", width=0.4, twin=True)


def _shirt(pen: Pen) -> None:
    hem, cuff = pen.vary(86, 90), pen.vary(68, 73)
    pen.panel("50,11~ 60,12 50,24~", pen.deep, joined=True)
    pen.panel(f"63,14 75,18~ 82,34~ 90,{cuff} 78,{cuff + 3} 72,46~ 69,34", twin=True)
    pen.panel(f"89.5,{cuff - 2} 91.5,{cuff + 6} 78.5,{cuff + 9} 77.5,{cuff + 1}", twin=True)
    pen.panel(f"50,25 60,13 70,16~ 72,30 70.5,58~ 73,{hem - 4} 64,{hem - 1}~ 50,{hem + 3}~", joined=True)
    pen.panel(f"47.4,25 52.6,25 52.6,{hem + 2.5} 47.4,{hem + 2.5}")
    for y in range(31, int(hem), 9):
        pen.disc(50, y, 1.1, RUBBER)
    pen.panel("50,25 59,11 63,14 58,29", twin=True)
    pen.line("51.5,25.5 57.4,26.8 61.4,14.6", dashed=True, twin=True, width=0.4)
    pen.panel("57,38 67,38 67,48 62,51 57,48")
    pen.line("57,40.5 67,40.5")


def _hoodie(pen: Pen) -> None:
    cuff = pen.vary(70, 76)
    pen.panel("50,5~ 63,10~ 66,22~ 60,30~ 50,33~", joined=True)
    pen.panel("50,10~ 58,13~ 60,22~ 50,30~", pen.deep, joined=True)
    pen.panel(f"64,21 77,25~ 84,40~ 91,{cuff} 79,{cuff + 3} 73,50~ 70,38", twin=True)
    pen.panel(f"90.5,{cuff - 1} 91.5,{cuff + 6} 80,{cuff + 9} 78.5,{cuff + 2}", pen.deep, twin=True)
    pen.panel("50,32~ 58,29~ 63,20 71,24~ 73,40 71,60~ 73,84 50,85~", joined=True)
    pen.panel("50,84~ 73,83 71.5,91 50,92~", pen.deep, joined=True)
    pen.panel("50,58 61,58 67,72 67,80 50,80", joined=True)
    pen.line("60.6,60.4 65,72", dashed=True, twin=True)
    pen.line("53.5,31 54.5,38~ 53.5,46", RUBBER, 1.1, twin=True)


def _jacket(pen: Pen) -> None:
    cuff = pen.vary(70, 75)
    pen.panel("50,10~ 61,11 58,20 50,24~", pen.deep, joined=True)
    pen.panel(f"63,14 77,19~ 85,36~ 92,{cuff} 79,{cuff + 3} 73,48~ 70,36", twin=True)
    pen.panel(f"91.5,{cuff - 1} 92.5,{cuff + 6} 80.5,{cuff + 9} 78.5,{cuff + 2}", pen.deep, twin=True)
    pen.panel("50,22 60,13 71,17~ 74,34 73,60~ 74,80 50,80", joined=True)
    pen.panel("50,80 74,80 72.5,89 50,89", pen.deep, joined=True)
    for x in range(52, 73, 3):
        pen.line(f"{x},81 {x},88.5", width=0.3, twin=True)
    pen.panel("50,23 57,9 62,8 65,16 54,34", pen.deep, twin=True)
    pen.line("50,24 50,89", METAL, 1.8)
    pen.line("50,24 50,89", mix(METAL, BLACK, 0.5), 0.7, dashed=True)
    pen.panel("49,30 51,30 51.3,35 48.7,35", METAL)
    pen.panel("60,58 66.5,66 64,68.5 57.5,60.5", pen.deep, twin=True)
    pen.line("68,20 72,33", dashed=True, twin=True)


def _dress(pen: Pen) -> None:
    hem, waist, flare = pen.vary(86, 92), pen.vary(40, 45), pen.vary(76, 84)
    pen.panel("50,19~ 57,15~ 60,8 62,8 62,20~ 50,24~", pen.deep, joined=True, edge=False)
    pen.panel(f"50,23~ 56,20~ 58.5,8 64,8 64.5,18~ 67,25 61,{waist} 50,{waist + 1}~", joined=True)
    pen.panel(f"50,{waist}~ 61,{waist} {flare - 8},64~ {flare},{hem - 2} 66,{hem}~ 50,{hem + 1}~", joined=True)
    for x0, x1 in ((53, 56), (57, 66)):
        pen.line(f"{x0},{waist + 5} {(x0 + x1) / 2 + 0.4},66~ {x1},{hem - 6}", twin=True)
    pen.panel(f"50,{waist - 2}~ 61.4,{waist - 2.4} 61.6,{waist + 2} 50,{waist + 2.6}~", pen.trim, joined=True)
    pen.line(f"{flare - 0.6},{hem - 5} 66,{hem - 3}~ 50,{hem - 2}~", dashed=True, joined=True)
    pen.line("57.3,18 54,22.2~ 50,24.6", dashed=True, joined=True, width=0.4)


def _skirt(pen: Pen) -> None:
    hem, flare = pen.vary(76, 88), pen.vary(80, 90)
    pen.panel(f"50,22~ 66,21 {flare - 8},56~ {flare},{hem - 3} {flare - 12},{hem + 1}~ 50,{hem + 2}~", joined=True)
    for x0, x1 in ((53, 56), (58, 67), (63, flare - 9)):
        pen.line(f"{x0},28 {(x0 + x1) / 2},54~ {x1},{hem - 1}", twin=True, width=0.7)
    pen.panel("50,17~ 65.5,16 66.5,23 50,24.5~", pen.deep, joined=True)
    pen.disc(50, 20.6, 1.7, GOLD)
    pen.line(f"{flare - 0.8},{hem - 6} {flare - 12},{hem - 2.4}~ 50,{hem - 1.4}~", dashed=True, joined=True)


def _trousers(pen: Pen) -> None:
    leg, ankle = pen.vary(66, 72), pen.vary(56, 59)
    pen.panel(f"50,12 65,11 68,26~ {leg + 1},55~ {leg},92 {ankle},93 51,38 50,36", joined=True)
    pen.line(f"61,32 {(leg + ankle) / 2 + 1},60~ {(leg + ankle) / 2},91", width=0.5, twin=True)
    pen.line("50,14 50,37")
    pen.line("53.5,15 53.5,27~ 50.4,32", dashed=True)
    pen.line("58,15.5 61,21~ 67,24", width=0.8, twin=True)
    pen.panel("50,8 64.6,7.5 65.4,14.5 50,15", pen.deep, joined=True)
    pen.panel("57,7 59.4,7 59.6,16 57.2,16", twin=True)
    pen.disc(50, 11.4, 1.4, GOLD)
    pen.line(f"{leg},88.6 {ankle - 0.4},89.6", dashed=True, twin=True)


def _shorts(pen: Pen) -> None:
    hem, leg = pen.vary(68, 80), pen.vary(77, 84)
    pen.panel(f"50,24 70,23 75,40~ {leg},{hem - 2} 53,{hem + 2} 50,50", joined=True)
    pen.line("50,28 50,50", width=0.8)
    pen.line("61,29 65,38~ 73.5,42", width=0.8, twin=True)
    pen.line(f"{leg - 0.8},{hem - 6} 52.8,{hem - 2}", dashed=True, twin=True)
    pen.panel("50,18~ 69,17 70.6,26 50,27~", pen.deep, joined=True)
    for x in range(53, 69, 3):
        pen.line(f"{x},19 {x + 0.4},25.8", width=0.4, twin=True)
    pen.line("51,23 56,29~ 54,40", RUBBER, 1.1, twin=True)


def _handbag(pen: Pen) -> None:
    top, handle = pen.vary(40, 46), pen.vary(8, 16)
    for width, colour in ((4.4, ink(pen.deep)), (3.0, pen.deep)):
        pen.line(f"67,{top + 6} 66,{handle + 14}~ 50,{handle}~", colour, width, joined=True)
    pen.panel(f"50,{top} 78,{top} 82,{top + 5}~ 88,80~ 82,88~ 50,89", joined=True)
    pen.line("85,82 80,85.6~ 50,86.4", dashed=True, joined=True)
    pen.panel(f"50,{top - 2} 79,{top - 2} 80,{top + 8}~ 70,64~ 50,69~", pen.deep, joined=True)
    pen.line(f"77.4,{top + 8} 68.4,62~ 50,66.6~", dashed=True, joined=True)
    pen.disc(67, top + 6, 2.4, GOLD)
    pen.disc(33, top + 6, 2.4, GOLD)
    pen.panel("46,61 54,61 54,73 50,75~ 46,73", GOLD)
    pen.disc(50, 68, 1.5, ink(GOLD), edge=False)


def _backpack(pen: Pen) -> None:
    top = pen.vary(14, 18)
    pen.line(f"58,{top + 3} 57,8~ 50,6~", pen.deep, 3, joined=True)
    pen.panel("72,36 84,48~ 83,78~ 74,84", pen.deep, twin=True)
    pen.panel(f"50,{top}~ 67,{top + 4}~ 76,38~ 79,80~ 72,91~ 50,92~", joined=True)
    pen.panel("50,56 70,56 73,62~ 73,80~ 67,86~ 50,86", joined=True)
    pen.panel("50,52 70.5,52 73,62~ 66,66~ 50,66.5~", pen.deep, joined=True)
    pen.line("73,48 68,32~ 50,27~", ink(pen.colour), 2.0, joined=True)
    pen.line("73,48 68,32~ 50,27~", METAL, 0.9, joined=True, dashed=True)
    pen.panel("50,36 56,36 56,44 50,44", (150, 104, 68), joined=True)
    pen.panel("60,61 63.6,61 63.6,74 60,74", (150, 104, 68), twin=True)
    pen.disc(61.8, 70, 1.3, GOLD)
    pen.disc(38.2, 70, 1.3, GOLD)


def _sneaker(pen: Pen) -> None:
    collar = pen.vary(33, 40)
    pen.panel("10,66 9,54~ 12,40 26,46~ 38,38 46,34 66,54~ 86,60~ 93,72 10,72")
    pen.panel(f"38,{collar + 1} 45,{collar - 8}~ 51,{collar - 4} 50,42 44,46", pen.deep)
    pen.panel("10,68 8,54~ 12,39 17,42~ 24,68", pen.deep)
    pen.panel("76,57.6 86,60~ 94,73 73,73 70,66~", RUBBER)
    pen.panel("28,69 34,56~ 60,64~ 64,69", pen.trim)
    for i in range(4):
        x, y = 45 + i * 5.4, 40 + i * 4.4
        pen.line(f"{x},{y} {x - 7},{y + 6}", RUBBER, 2.0)
    pen.line("40,39 56,57~ 70,64", dashed=True)
    pen.panel("8,68~ 40,70~ 93,69 95,76~ 90,81~ 50,81~ 14,81~ 8,77~", RUBBER)
    pen.line("10,76.5 50,77~ 93,76", ink(RUBBER), 0.5)


def _boot(pen: Pen) -> None:
    top = pen.vary(8, 20)
    pen.panel(f"27,{top} 57,{top} 56,48~ 63,58~ 82,64~ 92,80 25,80 28,52~")
    pen.panel("74,61.6 84,65~ 92,80 68,80 67,70~", pen.deep)
    pen.panel("25,80 27,62 38,66~ 42,80", pen.deep)
    pen.panel(f"26,{top - 1} 58,{top - 1} 57.6,{top + 6} 26.6,{top + 6}", pen.deep)
    for i in range(6):
        y = top + 10 + i * (46 - top) / 5.5
        pen.line(f"44,{y} 56,{y + 2.4}", pen.trim, 1.5)
        pen.disc(43.4, y, 1.2, METAL)
    pen.line(f"40,{top + 7} 40,56~ 52,66~ 66,70", dashed=True)
    pen.panel("23,79 92,79 93,86 58,86 55,84 44,84 43,91 23,91", (62, 48, 42))


def _hat(pen: Pen) -> None:
    crown = pen.vary(22, 30)
    pen.panel("50,52~ 95,64~ 50,80~", joined=True)
    pen.panel("50,58~ 86,64~ 50,74~", pen.deep, joined=True, edge=False)
    pen.panel(f"50,{crown + 4}~ 62,{crown - 1}~ 71,{crown + 10}~ 74,64 50,72~", joined=True)
    pen.panel("27.4,53 50,60~ 72.6,53 74,64.5 50,72.5~ 26,64.5", pen.trim)
    pen.line(f"50,{crown + 5} 47,{crown + 12}~ 50,{crown + 20}")
    pen.line("92,65.6 50,77.6~", dashed=True, joined=True)


def _cap(pen: Pen) -> None:
    peak = pen.vary(20, 28)
    pen.panel(f"16,64 18,42~ 46,{peak}~ 70,38~ 76,62 46,68~")
    pen.line(f"46,{peak} 54,42~ 56,66", width=0.8)
    pen.line(f"46,{peak} 32,40~ 30,66", width=0.8)
    pen.line("16.6,60 46,64~ 75.4,58", dashed=True)
    pen.panel("44,67 60,58~ 78,60~ 97,72~ 90,78~ 66,73~", pen.deep)
    pen.line("50,67.6 64,62.6~ 78,64~ 92,74", dashed=True)
    pen.disc(46, peak, 2.2, pen.deep)
    for x, y in ((26, 46), (42, 42), (64, 46)):
        pen.disc(x, y, 1, ink(pen.colour), edge=False)


def _beanie(pen: Pen) -> None:
    top = pen.vary(22, 30)
    for i in range(16):
        angle = i * math.tau / 16
        pen.disc(50 + 7 * math.cos(angle), top - 5 + 7 * math.sin(angle), 4.4, pen.trim)
    pen.disc(50, top - 5, 8.4, pen.trim, edge=False)
    pen.panel(f"50,{top}~ 72,{top + 10}~ 80,66 50,68~", joined=True)
    pen.panel("50,62~ 82,60 83,80 50,83~", pen.deep, joined=True)
    for x in range(53, 82, 4):
        pen.line(f"{x},62 {x + 0.6},{82 - (x - 50) ** 2 / 700}", twin=True)


def _watch(pen: Pen) -> None:
    strap, dial = pen.vary(10, 12), mix(pen.trim, WHITE, 0.5)
    for y0, y1 in ((6, 34), (95, 66)):
        pen.panel(f"50,{y0}~ {50 + strap * 0.8},{y0} {50 + strap},{y1} 50,{y1}", joined=True, weave=0.6)
        pen.line(f"{50 + strap * 0.6},{y0 + (y1 - y0) * 0.08} {50 + strap * 0.8},{y1}", dashed=True, twin=True)
    for hole in (76, 81, 86):
        pen.disc(50, hole, 1.1, ink(pen.deep), edge=False)
    pen.panel("39,4 61,4 61,9.6 39,9.6", METAL)
    pen.panel("73,47.6 78,47.6 78,52.4 73,52.4", METAL)
    pen.disc(50, 50, 24, METAL)
    pen.disc(50, 50, 20, mix(METAL, BLACK, 0.25))
    pen.disc(50, 50, 18.6, dial)
    for hour in range(12):
        x, y = math.sin(hour * math.tau / 12), math.cos(hour * math.tau / 12)
        inner = 14.0 if hour % 3 else 12.5
        pen.line(f"{50 + x * inner},{50 - y * inner} {50 + x * 16.6},{50 - y * 16.6}", ink(dial), 1.0)
    pen.line("50,50 41,44", ink(dial), 1.7)
    pen.line("50,50 58,38", ink(dial), 1.2)
    pen.line("50,54 50,35", COLOURS["red"], 0.5)
    pen.disc(50, 50, 1.5, ink(dial), edge=False)


def _sunglasses(pen: Pen) -> None:
    drop, lens = pen.vary(64, 71), mix((58, 62, 74), pen.colour, 0.25)
    pen.panel("90,37 96,36.4~ 97,44 95,56~ 93.4,56 93,45", pen.deep, twin=True)
    pen.panel(f"53,40~ 70,34.4~ 94,36~ 91,60~ 74,{drop}~ 56.4,59~", twin=True, weave=0.5)
    pen.panel(f"57,42~ 71,38.4~ 89.4,40~ 87,58~ 74,{drop - 4}~ 60,57~", lens, twin=True)
    for x in (64, 70):
        pen.line(f"{x + 4},43.6 {x - 2},56", mix(lens, WHITE, 0.35), 1.9)
        pen.line(f"{x - 30},43.6 {x - 36},56", mix(lens, WHITE, 0.35), 1.9)
    pen.panel("50,40~ 55,41.4 55,46.6 50,44.6~", joined=True, weave=0.5)


def _belt(pen: Pen) -> None:
    wide = pen.vary(10, 13)
    pen.panel(f"50,30~ 80,36~ 93,49 93,{44 + wide} 78,{35 + wide}~ 50,{29 + wide}~", pen.deep, joined=True)
    pen.panel(f"50,64~ 76,60~ 93,47 93,{48 + wide} 78,{61 + wide}~ 50,{65 + wide}~", joined=True, weave=0.6)
    pen.line("91,51 76,62.4~ 50,66.2~", dashed=True, joined=True)
    pen.line(f"91,{47.6 + wide} 77,{58.8 + wide}~ 50,{62.8 + wide}~", dashed=True, joined=True)
    for x, y in ((62, 63), (68, 61.6), (74, 59.2)):
        pen.disc(x, y + wide / 2, 1.1, ink(pen.deep))
    low, high = 61, 68 + wide
    for width, colour in ((4.2, ink(GOLD)), (2.8, GOLD)):
        pen.line(f"38,{low} 54,{low} 54,{high} 38,{high} 38,{low} 54,{low}", colour, width)
    pen.line(f"39,{(low + high) / 2} 56,{(low + high) / 2 - 0.6}", GOLD, 1.8)
    pen.panel(f"28,{59} 32,{60} 32,{64 + wide} 28,{63 + wide}", pen.deep)


def _scarf(pen: Pen) -> None:
    left, right = pen.vary(80, 88), pen.vary(72, 80)
    for x0, x1, y in ((28, 46, left), (52, 70, right)):
        for i in range(10):
            x = x0 + 0.8 + (x1 - x0 - 1.6) * i / 9
            pen.line(f"{x},{y - 1} {x + (-0.7, 0.7)[i % 2]},{y + 7}", pen.deep, 1.1)
    pen.panel(f"40,34 58,36 70,{right} 52,{right + 1} 46,50~")
    pen.line(f"55,46 60,60~ 63,{right - 6}", width=0.5)
    pen.panel(f"38,36 57,34 51,52~ 46,{left} 28,{left} 34,52~")
    pen.line(f"46,44 41,60~ 38,{left - 6}", width=0.5)
    pen.panel("50,8~ 70,11~ 79,26~ 70,40~ 50,45~", joined=True)
    pen.panel("50,14~ 64,16~ 67,22~ 50,28~", pen.deep, joined=True)
    pen.line("74,24 68,32~ 50,36~", joined=True)
    pen.line("70,34 62,39~ 50,41~", joined=True, width=0.4)


def _socks(pen: Pen) -> None:
    top = pen.vary(6, 14)
    for step in ((8, -2), (-15, 6)):
        pen.move(*step)
        pen.panel(f"35,{top} 56,{top} 57,48~ 63,58~ 82,69~ 87,79~ 78,88~ 54,80~ 38,66~ 34,48~", weave=0.7)
        pen.panel("73,63.6 82,69~ 87,79~ 78,88~ 68,86 68,72~", pen.deep)
        pen.panel("34.6,53 46,58~ 48,74 38,66~", pen.deep)
        pen.panel(f"34,{top - 2} 57,{top - 2} 57,{top + 8} 34,{top + 8}", pen.trim)
        for x in range(37, 57, 3):
            pen.line(f"{x},{top - 1} {x},{top + 7.4}", ink(pen.trim), 0.35)


SHAPES: dict[str, Callable[[Pen], None]] = {
    "t-shirt": _t_shirt, "shirt": _shirt, "hoodie": _hoodie, "jacket": _jacket, "dress": _dress, "skirt": _skirt,
    "trousers": _trousers, "shorts": _shorts, "handbag": _handbag, "backpack": _backpack, "sneaker": _sneaker,
    "boot": _boot, "hat": _hat, "cap": _cap, "beanie": _beanie, "watch": _watch, "sunglasses": _sunglasses,
    "belt": _belt, "scarf": _scarf, "socks": _socks,
}  # fmt: skip


def draw_product(look: Look, pose: Pose, size: int) -> Image.Image:
    """Return an RGBA drawing of `size` x `size` pixels, transparent around the product.

    Raises:
        KeyError: if category, colour or pattern of the look is unknown.
    """
    pen = Pen(look, pose, size)
    SHAPES[look.category](pen)
    return pen.canvas


def photograph(look: Look, pose: Pose, ground: Colour, pixels: int) -> Image.Image:
    """Show a product on a plain ground, lit softly from the upper left.

    Args:
        look: the product.
        pose: how it lies; at scale 1 it nearly fills the picture.
        ground: colour behind it.
        pixels: width and height of the picture.

    Returns:
        An RGB image.

    Raises:
        KeyError: if category, colour or pattern of the look is unknown.
    """
    big = draw_product(look, pose, pixels * SUPERSAMPLING)
    # Scaling down costs most of a picture's time, so only what is drawn on is scaled, in whole pixels of the result.
    left, top, right, bottom = (v // SUPERSAMPLING for v in big.getbbox() or (0, 0, *big.size))
    left, top, right, bottom = max(left - 2, 0), max(top - 2, 0), min(right + 3, pixels), min(bottom + 3, pixels)
    cut = big.crop((left * SUPERSAMPLING, top * SUPERSAMPLING, right * SUPERSAMPLING, bottom * SUPERSAMPLING))
    drawing = Image.new("RGBA", (pixels, pixels))
    drawing.paste(cut.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))

    product, shape, reach = drawing.convert("RGB"), drawing.getchannel("A"), pixels / 40
    soft = shape.filter(ImageFilter.GaussianBlur(reach))
    # Where the blurred shape, moved towards the light, leaves the shape bare, cloth turns away from the light.
    for direction, tone, strength in ((-0.5, BLACK, 0.3), (0.5, WHITE, 0.25)):
        rim = ImageChops.subtract(shape, _moved(soft, direction * reach))
        product.paste(tone, mask=rim.point([round(v * strength) for v in range(256)]))
    photo = Image.new("RGB", product.size, ground)
    photo.paste(mix(ground, (30, 30, 40), 0.8), mask=_moved(soft, reach * 0.6).point([v * 2 // 5 for v in range(256)]))
    photo.paste(product, mask=shape)
    return photo


def _moved(mask: Image.Image, pixels: float) -> Image.Image:
    moved = Image.new("L", mask.size)
    moved.paste(mask, (round(pixels), round(pixels)))
    return moved


def customer_photo(look: Look, seed: str, pixels: int) -> Image.Image:
    """Show a product as a customer's photo does: on a table, askew, in warm uneven light, a little blurred and noisy.

    Args:
        look: the product.
        seed: decides pose, table, light and noise.
        pixels: width and height of the picture.

    Returns:
        An RGB image.
    """
    rng = random.Random(seed)  # noqa: S311
    turn, shift = rng.choice((-1, 1)) * rng.uniform(6, 11), (rng.uniform(-3, 3), rng.uniform(-3, 3))
    photo = photograph(look, Pose(turn, rng.uniform(0.78, 0.86), shift), rng.choice(TABLES), pixels)
    falloff = Image.linear_gradient("L").rotate(rng.uniform(20, 70), Image.Resampling.BICUBIC).crop((48, 48, 208, 208))
    light = ImageOps.colorize(falloff, (255, 248, 232), (204, 194, 180)).resize(photo.size, Image.Resampling.BICUBIC)
    photo = ImageChops.multiply(photo, light).filter(ImageFilter.GaussianBlur(pixels / 600))
    grain = Image.frombytes("RGB", photo.size, rng.randbytes(3 * pixels**2)).filter(ImageFilter.GaussianBlur(0.6))
    return ImageChops.add(photo, grain.point([round(128 + (v - 128) * 0.14) for v in range(256)] * 3), offset=-128)
