"""The benchmarks' figures. Each is drawn from the rows of one report: draw(rows, plt, colour)."""

import statistics


def draw_ops(rows, plt, _):
    """Speed of every operation in every backend, and DIFF V2's peak memory against T."""
    fig, (speed, memory) = plt.subplots(1, 2, figsize=(17, 6.5), width_ratios=(2, 1))
    timed = [row for row in rows if "ms" in row]
    shapes = list(dict.fromkeys((r["h"], r["h_kv"], r["d"], r["T"]) for r in timed))
    series = list(dict.fromkeys((row["backend"], row["op"]) for row in timed))
    backends, ops = (list(dict.fromkeys(names[i] for names in series)) for i in (0, 1))
    shades = {  # tab20c has five hues of four shades
        (b, op): plt.get_cmap("tab20c")((4 * backends.index(b) + ops.index(op)) % 20)
        for b, op in series
    }
    for row in timed:
        i = series.index((row["backend"], row["op"]))
        x = shapes.index((row["h"], row["h_kv"], row["d"], row["T"]))
        place = x + 0.84 * ((i + 0.5) / len(series) - 0.5)
        speed.bar(place, row["tflops"], 0.84 / len(series), color=shades[series[i]])
    for names in series:
        speed.bar(0, 0, color=shades[names], label=", ".join(names))
    speed.set_xticks(range(len(shapes)), [f"{h}, {g}, {d}\nT={T}" for h, g, d, T in shapes])
    speed.set(xlabel="h, h_kv, d", ylabel="TFLOP/s", title="Forward and backward")
    speed.set_ylim(0, 1.4 * max((row["tflops"] for row in timed), default=1))  # room for the key
    if timed:
        speed.legend(fontsize=9, ncols=4, loc="upper left")
    for backend in dict.fromkeys(row["backend"] for row in rows if "peak_gb" in row):
        own = [row for row in rows if row["backend"] == backend and "peak_gb" in row]
        memory.loglog([r["T"] for r in own], [r["peak_gb"] for r in own], "o-", label=backend)
    memory.set(xlabel="T", ylabel="peak memory (GB)", title="DIFF V2, one sequence")
    if memory.lines:
        memory.legend()
    return fig


def draw_train(rows, plt, colour):
    """Tokens/s of every variant against softmax with 1.5h heads, with the range over rounds."""
    fig, ax = plt.subplots(figsize=(13, 6.5))
    rows = [row for row in rows if "vs_softmax_1.5h" in row]
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    names = list(dict.fromkeys(row["variant"] for row in rows))
    for row in rows:
        i, ratio = names.index(row["variant"]), row["vs_softmax_1.5h"]
        x = sizes.index(row["size"]) + 0.84 * ((i + 0.5) / len(names) - 0.5)
        ends = ratio - row["vs_softmax_1.5h_low"], row["vs_softmax_1.5h_high"] - ratio
        ax.bar(x, ratio, 0.8 / len(names), color=colour(row["variant"]), alpha=0.5)
        ax.errorbar(x, ratio, [[end] for end in ends], color="black", capsize=3)
        speed = f"MFU {row['mfu']:.0%}" if row["mfu"] else f"{row['tokens_per_s']:,.0f} tokens/s"
        ax.text(x, 0.03, f"{row['variant']}: {speed}", rotation=90, ha="center", fontsize=12)
    ax.axhline(1, color="black", linestyle="--", linewidth=1.5)
    ax.set_xticks(range(len(sizes)), sizes)
    ax.set(ylabel="tokens/s, softmax 1.5h = 1", title="Training steps")
    return fig


def draw_decode(rows, plt, colour):
    """A roofline of attention alone, and the time of a token against softmax with h heads."""
    fig, (roof, ratio) = plt.subplots(1, 2, figsize=(17, 6.5))
    timed = [row for row in rows
             if "vs_softmax_h" in row and row.get("kernel", "cached") == "cached"]  # fmt: skip
    names = list(dict.fromkeys(row["variant"] for row in timed))
    timed.sort(key=lambda row: row["variant"] == "diff_v2")  # drawn last: on top
    names.sort(key=lambda name: name == "diff_v2")
    marks = dict(zip(sorted({row["batch"] for row in timed}), "os^Dvp", strict=False))
    copies = [row["gb_per_s"] for row in rows if row.get("what") == "copy"]
    ends = (2, 32)  # operations per byte
    if copies:
        roof.plot(ends, [x * statistics.median(copies) / 1e3 for x in ends], "k--", linewidth=1.5)
    for row in timed:
        if row["what"] == "attention":
            look = {"color": colour(row["variant"]), "marker": marks[row["batch"]], "alpha": 0.7}
            roof.plot(row["flops_per_byte"], row["tflops"], **look)
    roof.set(xscale="log", yscale="log", xlabel="operations per byte of cache", ylabel="TFLOP/s")
    roof.set_xticks((2, 4, 8, 16, 32), (2, 4, 8, 16, 32))
    roof.minorticks_off()
    roof.set_title("Attention alone; dashed: copy bandwidth")
    for name in names:
        ratio.plot([], [], color=colour(name), label=name)
        for batch, mark in marks.items():
            for what, line in (("attention", ":"), ("step", "-")):
                key = (what, name, batch)
                own = [r for r in timed if (r["what"], r["variant"], r["batch"]) == key]
                own.sort(key=lambda row: row["context"])
                look = {"color": colour(name), "marker": mark, "linestyle": line}
                look["fillstyle"] = "none" if name.startswith("softmax") else "full"
                ratio.plot([r["context"] for r in own], [r["vs_softmax_h"] for r in own], **look)
    for batch, mark in marks.items():
        ratio.plot([], [], mark, color="grey", label=f"batch {batch}")
    ratio.set(xscale="log", xlabel="context (tokens)", ylabel="ms a token, softmax h = 1")
    contexts = sorted({row["context"] for row in timed if row["what"] != "generate"})
    ratio.set_xticks(contexts, [f"{n // 1024}k" if n >= 1024 else n for n in contexts])
    ratio.set_yscale("log")  # or V1, at 2 and above, leaves no room for the rest
    ratio.set_yticks((1, 1.1, 1.2, 1.5, 2, 3), (1, 1.1, 1.2, 1.5, 2, 3))
    ratio.minorticks_off()
    ratio.set_title("Dotted: attention alone; solid: whole step")
    if timed:
        ratio.legend(fontsize=11)
    return fig
