"""The picture of the layer is what its code draws, can be read aloud, and is legible on a phone."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from minidiff.look import diagram

ROOT = Path(__file__).parents[1]
FILE = ROOT / "notebooks" / "figures" / "layer.svg"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_file_is_what_the_code_draws():
    again = "run: python -m minidiff.look.diagram notebooks/figures/layer.svg"
    assert FILE.read_text(encoding="utf-8") == diagram.layer(), again


def test_a_screen_reader_hears_a_title_and_a_description():
    root = ET.fromstring(FILE.read_text(encoding="utf-8"))
    ids = root.get("aria-labelledby").split()
    named = {root.find(f"{SVG}title").get("id"), root.find(f"{SVG}desc").get("id")}
    assert root.get("role") == "img" and set(ids) == named
    assert {"q_proj", "lambda", "subtracted"} <= set(re.findall(r"\w+", diagram.DESCRIPTION))


def test_words_stay_above_11_pixels_on_a_phone():
    sizes = [int(size) for size in re.findall(r"font-size: (\d+)px", diagram.STYLE)]
    assert min(sizes) * 390 / diagram.WIDTH > 11


def luminance(colour):
    colour = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(c * weight for c, weight in zip(parts, (0.2126, 0.7152, 0.0722), strict=True))


def test_every_colour_of_words_stands_out_in_both_themes():
    light, dark = diagram.STYLE.split("@media")
    for theme in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w+)", theme))
        for name in ("ink", "soft", "word"):
            for ground in ("card", "tint"):
                a, b = sorted((luminance(colours[name]), luminance(colours[ground])))
                assert (b + 0.05) / (a + 0.05) >= 4.5, (name, ground)  # WCAG AA
    assert "--soft: #0072B2" in light and "--new: #D55E00" in light  # as in all figures


def test_the_maps_are_softmax_maps_and_their_difference():
    a1, a2, difference = diagram.maps()
    ones = torch.ones(len(a1))
    for weights, total in ((a1, 1), (a2, 1), (difference, 0.5)):
        torch.testing.assert_close(weights.sum(-1), total * ones)
        assert not weights.triu(1).any()
    # both look at token 0, and the difference hardly does
    assert 2 * difference[2:, 0].abs().mean() < a1[2:, 0].mean() < a2[2:, 0].mean()
