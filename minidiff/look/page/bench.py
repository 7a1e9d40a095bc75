"""Latencies of the page in Chromium, as a reader meets them, written as JSON. A bench, not a test.

    python -m minidiff.look.page.build site/explorer
    python -m minidiff.look.page.bench site/explorer results.json

Each number is milliseconds from the input to the finished picture, median and 95th percentile:
both models compute, in two workers, while the page draws. Only one is said to be of one model: what
its worker needs to read one more byte, with the maps and numbers that it sends to the page.
"""

import json
import platform
import shutil
import statistics
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

READY = "() => document.querySelector('main').minidiff?.voices.length === 2"
SETUP = """() => {
    const page = document.querySelector("main").minidiff;
    const words = "for name in names:\\n    print(name) ";
    const text = (count, seed) => Array.from({ length: count },
        (_, i) => words.charCodeAt((7 * seed + i) % words.length));
    const fill = (value) => {
        const wheel = page.voices[1].untouched();
        wheel.lam.fill(value);
        return { diff_v2: wheel };
    };
    globalThis.actions = {
        prompt: (i) => page.change({ bytes: text(200, i), query: null, tab: "wheel" }),
        again: () => page.change({ bytes: text(200, 0), query: null }),
        grow: (i) => page.change({ bytes: [...page.state.bytes, 97 + (i % 20)], query: null }),
        alone: (i) => page.voices[i % 2].look({ ...page.state, bytes: [...text(200, 0), 97 + i] }),
        short: () => page.change({ bytes: text(50, 0), query: null, wheels: {}, tab: "wheel" }),
        hold: (i) => page.change({ wheels: fill((i % 50) / 50) }),
        heads: () => page.change({ wheels: {}, tab: "heads" }),
        enter: (i) => page.enter(page.voices[1], { layer: i % 7, head: i % 4 }),
        point: (i) => page.point(1 + (i % 49)),
    };
    globalThis.timed = async (name, rounds) => {
        const times = [];
        for (let i = 0; i < rounds; i++) {
            const began = performance.now();
            await actions[name](i + 1);
            document.body.offsetHeight; // lay the new picture out
            times.push(performance.now() - began);
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
        return times;
    };
}"""
ROUNDS = {  # action -> (what it is, how often)
    "prompt": ("a new prompt of 200 bytes", 15),
    "grow": ("one more byte at 200", 30),
    "again": ("the first prompt of 200 bytes again", 1),
    "alone": ("one more byte at 200, of one model, nothing drawn", 30),
    "short": ("a prompt of 50 bytes", 2),
    "hold": ("lambda of all heads held, 50 bytes", 40),
    "heads": ("open the overview of all heads, 50 bytes", 2),
    "enter": ("enter another head, 50 bytes", 30),
    "point": ("point at another byte, 50 bytes", 40),
}


def measure(site):
    """name -> {"median", "p95"} in milliseconds, of the page that build.py made in this folder."""
    address = (Path(site).resolve() / "index.html").as_uri()
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opening = []
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_function(READY)
            opening.append(1000 * (time.perf_counter() - began))
        page.evaluate(SETUP)
        times = {"open the page, until both models are drawn": opening}
        for action, (what, rounds) in ROUNDS.items():
            times[what] = page.evaluate("([name, n]) => timed(name, n)", [action, rounds])
        browser.close()
    return {what: summary(values) for what, values in times.items()}


def summary(values):
    """Median and 95th percentile, in milliseconds."""
    worst = sorted(values)[round(0.95 * (len(values) - 1))]
    return {"median": round(statistics.median(values), 1), "p95": round(worst, 1)}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("error: name the built folder, such as site/explorer, and the file to write")
    found = {"milliseconds": measure(sys.argv[1]), "machine": platform.platform()}
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
