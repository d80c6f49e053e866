"""Draws the marbled papers of the sample site (needs numpy and Pillow).

    python3 web/tools/marble.py web/site/papers

A sheet is made as on the bath: drops of colour spread in turn, then combs are drawn through them.
Both have closed inverses, so each pixel asks where it came from.
"""
import sys
import numpy as np
from PIL import Image, ImageFilter


def sheet(seed, colours, drops, strokes, size=(480, 600), scale=2):
    rng = np.random.default_rng(seed)
    w, h = size[0] * scale, size[1] * scale
    y, x = np.mgrid[0:h, 0:w].astype(np.float32) / (size[0] * scale)
    for stroke in reversed(strokes):
        x, y = stroke(x, y)
    palette = np.array([[int(c[i:i + 2], 16) for i in (1, 3, 5)] for c in colours], np.float32)
    fill = [palette[0]]
    layer = np.zeros(x.shape, np.int16)
    todo = np.ones(x.shape, bool)
    made = [(rng.uniform(-.3, 1.3), rng.uniform(-.3, 1.55), rng.uniform(*drops[1]),
             palette[rng.integers(1, len(palette))] + rng.normal(0, 5)) for _ in range(drops[0])]
    for cx, cy, r, colour in reversed(made):          # the last drop lies on top, and pushed the others
        fill.append(colour)
        dx, dy = x - cx, y - cy
        d2 = dx * dx + dy * dy
        layer[todo & (d2 < r * r)] = len(fill) - 1
        todo &= d2 >= r * r
        back = np.sqrt(np.maximum(1 - r * r / np.maximum(d2, r * r + 1e-9), 0))
        x, y = cx + dx * back, cy + dy * back
    image = np.array(fill, np.float32)[layer]
    grain = rng.normal(0, 1, (h // 2, w // 2)).astype(np.float32).repeat(2, 0).repeat(2, 1)
    image += 2.2 * grain[..., None]
    out = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).resize(size, Image.LANCZOS)
    return out.filter(ImageFilter.GaussianBlur(.35))


def comb(angle, spacing, reach, sharp, offset=0.0, alternate=False):
    """A row of tines drawn in one direction; with `alternate`, every second one goes back."""
    c, s = np.cos(angle), np.sin(angle)

    def stroke(x, y):
        across = -s * x + c * y + offset
        cell = np.floor(across / spacing)
        away = np.abs(across / spacing - cell - .5) * spacing
        shift = reach * np.exp(-away / sharp)
        if alternate:
            shift = np.where(cell.astype(int) % 2 == 0, shift, -shift)
        return x - c * shift, y - s * shift
    return stroke


def wave(angle, length, height):
    """The whole bath pushed to and fro: a waved comb, or the sheet laid on in small steps."""
    c, s = np.cos(angle), np.sin(angle)

    def stroke(x, y):
        shift = height * np.sin((c * x + s * y) * 2 * np.pi / length)
        return x + s * shift, y - c * shift
    return stroke


H, V = 0.0, np.pi / 2
PAPERS = {
    "laguna": (3, ["#efe6d2", "#1f3f4d", "#2f6670", "#8fb3ab", "#d9c9a3", "#efe6d2", "#b5563c"],
               (170, (.02, .09)), [comb(V, .16, .5, .05, 0, True), comb(H, .034, .22, .010, 0, True)]),
    "pavone": (8, ["#f0e7d8", "#5a1f2b", "#8d2f33", "#c7803f", "#e4c58a", "#27384a", "#f0e7d8"],
               (190, (.02, .08)), [comb(V, .12, .55, .04, 0, True), comb(H, .030, .25, .009, 0, True),
                                   wave(V, .24, .035), comb(V, .12, .10, .025)]),
    "sasso": (21, ["#e9dfc9", "#3b4a3f", "#6d7f5c", "#c9bf94", "#e9dfc9", "#a4643f", "#22302c"],
              (1100, (.008, .06)), [wave(.4, 1.3, .03)]),
    "onda": (34, ["#f3ecdf", "#27364f", "#4d6a8f", "#aebfcf", "#f3ecdf", "#d3a04f"],
             (230, (.015, .08)), [comb(H, .11, .4, .03, 0, True), wave(V, .105, .022), wave(H, .9, .03)]),
    "gelso": (55, ["#eee3d0", "#4a2b3f", "#7b4a62", "#b98b8f", "#eee3d0", "#54614a"],
              (180, (.02, .09)), [comb(H, .13, .45, .04, 0, True), comb(V, .05, .16, .014), comb(H, .13, -.2, .03, .065)]),
    "notte": (89, ["#151d2b", "#22304a", "#3c5878", "#c9a557", "#0e141f", "#7a8ba0"],
              (260, (.01, .07)), [comb(.6, .17, .35, .05, 0, True), comb(.6 + V, .06, .18, .016, 0, True)]),
}

if __name__ == "__main__":
    for name, paper in PAPERS.items():
        sheet(*paper).save(f"{sys.argv[1]}/{name}.webp", quality=50, method=6)
        print(name)
