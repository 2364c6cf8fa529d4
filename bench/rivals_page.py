"""What bench.rivals writes: a table, a plot, the paper's Table 2 beside it, and one HTML page with clips in it."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import torch

from . import sampling

SHOWN = 2  # pictures whose clips stand in the page
COUNTED = ("evaluations",)  # columns of one number, without an error
ENOUGH = 2  # standard errors, from which a difference is told

EXPLAINED = {
    "speed / asked": "speed of the nearest true clip, over the speed that was asked for: 1 is what was asked, flicker does not count",
    "travel, pixels": "how far the subject gets from first frame to last, of 128 pixels, by a tracker that flicker does not fool",
    "still clips": "share of clips whose subject goes less than a quarter of the way",
    "distance to the nearest true clip": "root mean square difference from the true clip that moves alike: lower is better",
    "consistent motion": "pixels at 256 x 144, summed over the clip; only what forward and backward flow and three frames agree on (DIS)",
    "flicker": "mean change from frame to frame that no motion explains, full colour range = 1: lower is better",
    "likeness": "1 less the mean difference to the picture once the motion is undone: 1 is the picture, moved",
    "dynamic degree": "share of clips that VBench's rule calls dynamic, with DIS instead of its RAFT",
    "FVD": "Frechet video distance to true clips (I3D), lower is better; of so few clips far too high, so that it orders rows at most",
    "evaluations": "calls of the network a clip",
    "seconds": "seconds of sampling, of a row's quickest clip, on one CPU core beside other work: evaluations are the fairer cost",
}
NO_SCORE = "*Inception score* is not in the table: its network cannot be had, see `bench.fvd --help`."
NOT_HERE = (  # of SVD's kind
    "Not in the table: *DyMoS* proper (its attention over all tokens does not exist in SVD's kind; the bias on the first frame's key of temporal attention stands for it); "
    "*Painter's scaling* (it scales what the grey filler frames of Wan's condition differ from the first frame by; SVD's condition has the picture in every frame, and the difference is 0). "
)
# Table 2 of the paper, DynamiCrafter naively tuned: FVD, IS, motion score, seconds
PAPER = {"FrameInit": (380.7, 20.09, 32.16, 24.3), "FreeInit": (347.4, 22.66, 46.24, 49.6), "progressive noise": (358.1, 21.35, 49.76, 23.3)}
OURS, OURS_HERE = (342.9, 22.71, 50.08, 22.6), "early start, Analytic-Init, sigma"


@dataclass(frozen=True)
class Row:
    """A row of the table. clips: figures, one a clip; plain: those of the plain clips of the same CFG, in the same order."""

    number: int
    cure: object
    clips: list
    plain: list
    idle: bool = False  # the same as plain, to the bit
    fvd: float | None = None

    @property
    def name(self):
        return self.cure.name

    def more(self, column, than=None):
        """By how much it has more of a column than its plain clips, or than another row's: mean and standard error."""
        others = self.plain if than is None else than.clips
        return sampling.mean_and_error([a[column] - b[column] for a, b in zip(self.clips, others, strict=True)])


def rows_of(clips, cures, distances):
    of = {cure.name: clips.of(cure) for cure in cures}
    base = {cure.cfg: cure for cure in reversed(cures) if cure.kind == "plain"}
    rows = []
    for number, cure in enumerate(cures, 1):
        plain = base.get(cure.cfg, cure)
        rows.append(Row(number, cure, of[cure.name], of[plain.name], clips.as_plain(cure, plain), distances.get(cure.name)))
    return rows


# ---- table and words -------------------------------------------------------------------


def cell(row, column):
    if column == "FVD":
        return f"{row.fvd:.0f}"
    if column == "seconds":  # a mean would tell what else the machine had to do
        return f"{min(c[column] for c in row.clips):.1f}"
    return f"{row.clips[0][column]:g}" if column in COUNTED else sampling.pm([c[column] for c in row.clips])


def table(rows, columns):
    """-> lines of markdown."""
    if rows[0].fvd is not None:
        columns = (*columns[:-2], "FVD", *columns[-2:])
    compared = (columns[0], "likeness")
    head = ["", "cure", *columns, *(f"{c} more than plain, same clips" for c in compared)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        name = f"{row.name} (nothing to act on here: plain to the bit)" if row.idle else row.name
        against = ["" if row.clips is row.plain else sampling.number(row.more(c)) for c in compared]
        lines.append(f"| {' | '.join([str(row.number), name, *(cell(row, c) for c in columns), *against])} |")
    return lines


def told(difference, sign=1):
    """Whether a difference (mean, error) has the sign: 1 yes, -1 the other, 0 cannot be told."""
    mean, error = difference
    return 0 if abs(mean) <= ENOUGH * error else 1 if mean * sign > 0 else -1


def ranks(values):
    """Ranks from 0, equal values sharing theirs."""
    values = torch.tensor(values, dtype=torch.float64)
    return (values[:, None] > values).sum(1).double() + ((values[:, None] == values).sum(1).double() - 1) / 2


def agreement(rows, motion):
    """Spearman's correlation over the rows of what needs no truth with the motion that is known: a line of markdown."""
    mean = lambda row, column: sum(c[column] for c in row.clips) / len(row.clips)
    truth, said = ranks([mean(row, motion) for row in rows]), []
    for column in ("consistent motion", "dynamic degree", "flicker"):
        other = ranks([mean(row, column) for row in rows])
        pair = torch.corrcoef(torch.stack([truth, other]))[0, 1]
        said.append(f"{column} {float(pair):.2f}" if pair.isfinite() else f"{column} the same in all")
    return f"- **How far measures that need no truth follow it here** (rank correlation of the {len(rows)} rows with *{motion}*): {', '.join(said)}."


def summary(rows, motion):
    """What moves more than plain, what less, what cannot be told: lines of markdown."""
    others = [row for row in rows if row.clips is not row.plain]
    kinds = [("Nothing to act on here (plain to the bit)", [r for r in others if r.idle])]
    for sign, words in ((1, "Moves more than plain"), (-1, "Moves less than plain"), (0, "Cannot be told from plain")):
        kinds.append((words, [r for r in others if not r.idle and told(r.more(motion)) == sign]))
    acting = [row for row in rows if not row.idle]
    at = [points(row, motion)[:2] for row in acting]
    best = [acting[i] for i in frontier(at) if at.index(at[i]) == i]  # of equal ones the first
    lines = [f"- **{words}**: {'; '.join(f'{r.number} {r.name}' for r in found)}." for words, found in kinds if found]
    lines.append(f"- **No other row has both more motion and more likeness**: {'; '.join(f'{row.number} {row.name}' for row in best)}.")
    if motion != "consistent motion":
        lines.append(agreement(rows, motion))
    return [f"By *{motion}*, the same pictures and seeds, {ENOUGH} standard errors of {len(rows[0].clips)} clips:", "", *lines]


def against_paper(rows, motion, distance):
    """The paper's Table 2 and, in words, what agrees: lines of markdown; none where the rows are not there."""
    found = {name: [r for r in rows if r.cure.kind == "other starts" and r.name.startswith(name)] for name in PAPER}
    starts = [r for r in rows if r.name.startswith(OURS_HERE) and "+" not in r.name]
    if not starts or not any(found.values()):
        return []
    here = [motion, *([distance] if distance else []), *(["FVD"] if rows[0].fvd is not None else []), "evaluations"]
    lines = [f"| | paper: motion score | FVD | IS | seconds | {' | '.join(f'here: {c}' for c in here)} |", "|---" * (5 + len(here)) + "|"]
    for name, figures in [*PAPER.items(), ("Analytic-Init", OURS)]:
        for row in found.get(name, starts):
            fvd, score, moved, seconds = figures
            lines.append(f"| {row.name} | {moved:g} | {fvd:g} | {score:g} | {seconds:g} | {' | '.join(cell(row, c) for c in here)} |")
    lines += ["", "The paper finds Analytic-Init better than each of the others. Here:", ""]
    words = {1: "agrees", 0: "cannot be told", -1: "**does not agree**"}
    for name, (fvd, _, moved, seconds) in PAPER.items():
        for row in found[name]:
            said = []
            for start in starts:
                level, more = start.name.removeprefix(OURS_HERE).strip(), start.more(motion, row)
                parts = [f"motion {words[told(more)]} ({more[0]:+.3f} ± {more[1]:.3f})"]
                if distance:
                    further = start.more(distance, row)
                    parts.append(f"quality {words[told(further, -1)]} (distance {further[0]:+.3f} ± {further[1]:.3f})")
                said.append(f"from sigma {level}: {', '.join(parts)}")
            ratio = row.clips[0]["evaluations"] / starts[0].clips[0]["evaluations"]
            cost = f"cost: {'as many' if ratio == 1 else f'{ratio:g} times the'} evaluations (the paper: {seconds / OURS[3]:.2f} times the seconds)"
            lines.append(f"- against *{row.name}* (the paper: motion {OURS[2]:g} and {moved:g}, FVD {OURS[0]:g} and {fvd:g}): {'; '.join(said)}; {cost}.")
    lines += ["", "The paper's motion score counts flicker, its model is DynamiCrafter and its FVD is of 2,048 clips: only the order can be compared."]
    return lines


# ---- plot ------------------------------------------------------------------------------


def frontier(points):
    """The indices of (motion, likeness) that no other point beats in both, from least motion to most."""
    best = [i for i, (m, v) in enumerate(points) if not any((a >= m and b >= v) and (a > m or b > v) for a, b in points)]
    return sorted(best, key=lambda i: points[i])


def points(row, motion):
    """-> motion, likeness, and their errors."""
    (m, dm), (v, dv) = (sampling.mean_and_error([c[name] for c in row.clips]) for name in (motion, "likeness"))
    return m, v, dm, dv


def labels(numbers, at):
    """Points that lie on one another get one label: [(numbers, (x, y) of the first)]."""
    sides = [max(c) - min(c) or 1.0 for c in zip(*at)]
    groups = []
    for number, point in zip(numbers, at):
        near = next((g for g in groups if all(abs(a - b) < 0.025 * side for a, b, side in zip(point, g[1], sides))), None)
        if near is None:
            groups.append(([number], point))
        else:
            near[0].append(number)
    return [(in_words(n), point) for n, point in groups]


def in_words(numbers):
    """[1, 3, 4, 5] -> '1, 3-5'."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)


def plot(rows, motion, path, title):
    """Motion against likeness, a numbered point a row, with the frontier; right and up is better."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.2), dpi=90, layout="constrained")
    axes = figure.add_subplot()
    at, kinds = [points(row, motion) for row in rows], list(dict.fromkeys(row.cure.kind for row in rows))
    colour = {kind: "black" if kind == "plain" else f"C{i}" for i, kind in enumerate(kinds)}
    for row, (m, v, dm, dv) in zip(rows, at):
        axes.errorbar(m, v, dv, dm, "o", color=colour[row.cure.kind], ms=5, lw=0.7, alpha=0.75)
    for numbers, (m, v) in labels([row.number for row in rows], [p[:2] for p in at]):
        axes.annotate(numbers, (m, v), fontsize=9, xytext=(4, 4), textcoords="offset points")
    best = frontier([p[:2] for p in at])
    (line,) = axes.plot([at[i][0] for i in best], [at[i][1] for i in best], "--", color="grey", lw=1)
    handles = [axes.plot([], [], "o", color=colour[row.cure.kind], ms=5)[0] for row in rows]
    names = [f"{row.number}  {row.name}" for row in rows]
    axes.legend([*handles, line], [*names, "frontier: none has more of both"], fontsize=7.5, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set(xlabel=f"{motion}  (right: moves more)", ylabel="likeness to the picture  (up: keeps it)", title=title)
    axes.grid(alpha=0.2)
    figure.savefig(path)


# ---- page ------------------------------------------------------------------------------

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;padding:1.5em;max-width:1240px;color:#222}
h1{font-size:1.6em}h2{margin-top:1.6em;border-bottom:1px solid #ddd}h3{margin:1.2em 0 .2em;font-size:1em;color:#555}
.cards{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0;width:282px}figure img{width:139px;border-radius:4px;background:#eee}
figcaption{font-size:13px}figcaption b{font-size:14px}figcaption i{color:#666;font-style:normal;display:block}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:12px}td,th{border:1px solid #ddd;padding:3px 7px;text-align:left;vertical-align:top}
th{background:#f4f4f4}tr:hover td{background:#fafaf0}img.plot{max-width:100%}code{background:#f4f4f4;padding:1px 4px}li{margin:.3em 0}
"""


def webp(frames, fps):
    """Frames [t, H, W, 3] -> an animated WebP."""
    from PIL import Image

    pictures = [Image.fromarray((f.clamp(0, 1) * 255).round().byte().numpy()) for f in frames]
    for picture in pictures:
        picture.thumbnail((256, 256))
    out = io.BytesIO()
    times = [round(1000 / fps)] * (len(pictures) - 1) + [700]  # the last frame stays, so that one sees how far it got
    pictures[0].save(out, "WEBP", save_all=True, append_images=pictures[1:], duration=times, loop=0, quality=60, method=4)
    return out.getvalue()


def inline(kind, data):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def marked(text):
    """The little markdown that this module writes -> HTML."""
    out = html.escape(text)
    for sign, tag in (("**", "b"), ("`", "code"), ("*", "em")):
        parts = out.split(sign)
        out = "".join(part if i == 0 else f"<{'' if i % 2 else '/'}{tag}>{part}" for i, part in enumerate(parts))
    return out


def as_html(lines):
    """Markdown lines (paragraphs, lists, tables) -> HTML."""
    out, i = [], 0
    while i < len(lines):
        sign = lines[i][:2]
        block = list(_until(lines[i:], sign)) if sign in ("| ", "- ") else [lines[i]]
        if sign == "| ":
            cells = [[marked(c.strip()) for c in line.strip("|").split("|")] for line in block if not line.startswith("|---")]
            rows = ["<tr>" + "".join(f"<{'td' if k else 'th'}>{c}</{'td' if k else 'th'}>" for c in row) + "</tr>" for k, row in enumerate(cells)]
            out.append(f"<div class=wide><table>{''.join(rows)}</table></div>")
        elif sign == "- ":
            out.append("<ul>" + "".join(f"<li>{marked(line[2:])}</li>" for line in block) + "</ul>")
        elif lines[i]:
            out.append(f"<p>{marked(lines[i])}</p>")
        i += len(block)
    return "\n".join(out)


def _until(lines, sign):
    for line in lines:
        if not line.startswith((sign, "|---") if sign == "| " else sign):
            return
        yield line


def card(images, name, words, figures):
    shown = " ".join(f"<img src='{inline('webp', data)}' alt=''>" for data in images)
    return f"<figure>{shown}<figcaption><b>{marked(name)}</b><i>{marked(words)}</i>{marked(figures)}</figcaption></figure>"


def gallery(clips, rows, motion):
    """The clips of the first pictures, a card a row, by kind."""
    source, shown = clips.source, range(min(SHOWN, len(clips.source)))
    out = []
    if hasattr(source, "true_clip"):
        images = [webp(source.true_clip(k, 0).float(), source.fps) for k in shown]
        out.append(f"<div class=cards>{card(images, 'a true clip', 'one of the many that may follow from these pictures', '')}</div>")
    for kind in dict.fromkeys(row.cure.kind for row in rows):
        cards = []
        for row in (r for r in rows if r.cure.kind == kind and not r.idle):
            images = [webp(clips.frames(row.cure, k, 0), source.fps) for k in shown]
            m, v, *_ = points(row, motion)
            cards.append(card(images, f"{row.number}  {row.name}", row.cure.words, f"{motion} {m:.2f}, likeness {v:.3f}"))
        if cards:
            out.append(f"<h3>{kind}</h3><div class=cards>{''.join(cards)}</div>")
    idle = [f"{row.number} {row.name}" for row in rows if row.idle]
    if idle:
        out.append(f"<h3>nothing to act on here</h3><p>The same clips as plain, to the bit: {html.escape('; '.join(idle))}.</p>")
    return "".join(out)


def page(title, sections):
    """One HTML file. sections: [(heading or '', html)]."""
    body = "".join((f"<h2>{html.escape(heading)}</h2>" if heading else "") + content for heading, content in sections)
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en>{head}<h1>{html.escape(title)}</h1>{body}</html>\n"


def write(clips, cures, distances, o, command):
    """Table, plot and page into o.out."""
    source, rows = clips.source, rows_of(clips, cures, distances)
    name, motion = Path(o.checkpoint).stem, source.motion
    demo = o.kind not in ("file", "wan")
    titled = name if not demo else "a simulated leak" if o.kind == "simulated" else f"the demo model {name}"
    who, title = source.name.format(name), f"Cures for still clips, side by side: {titled}"
    lead = [
        f"An image-to-video model may copy its picture instead of moving it. Here {len(rows)} ways to sample the same model are held against each other: {who}. "
        f"{len(source)} pictures x {o.seeds} seeds, the same under every way; {o.steps} Euler steps, scheduler {source.scheduler}, CFG {o.cfg:g} where a row says nothing else{f', motion bucket {o.bucket}' if o.kind in ('demo', 'file') else ''}. "
        + ("It is small and its data are simple: what holds here need not hold elsewhere." if demo else ""),
        "",
        f"`python run.py do bench.rivals {command}` makes this page anew, and the same for a checkpoint of yours.",
    ]
    columns = [c for c in (*source.columns, *(["FVD"] if distances else [])) if c in EXPLAINED]
    meaning = [f"- **{c}**: {EXPLAINED[c]}" for c in columns] + ["", "Mean ± standard error; differences are clip by clip."]
    missing = ("" if o.kind in ("wan", "trained wan") else NOT_HERE) + NO_SCORE
    lines, found, paper = table(rows, source.columns), summary(rows, motion), against_paper(rows, motion, source.distance)
    o.out.mkdir(parents=True, exist_ok=True)
    picture = o.out / f"rivals_{name}.png"
    plot(rows, motion, picture, title)
    heading = lambda text: ["", f"## {text}", ""]
    beside = [*heading("The paper's Table 2 beside it"), *paper] if paper else []
    sampling.write_result(
        f"rivals_{name}.md",
        [f"# {title}", "", *lead, *heading("What came of it"), *found, "", f"![Motion against likeness]({picture.name})", *beside, *heading("All figures"), *meaning, "", missing, "", *lines],
        o.out,
    )  # fmt: skip
    plotted = f"<img class=plot src='{inline('png', picture.read_bytes())}' alt='motion against likeness'>"
    with torch.inference_mode():
        shown = gallery(clips, rows, motion)
    sections = [("", as_html(lead)), ("The clips", shown), ("What came of it", as_html(found) + plotted)]
    sections += [("The paper's Table 2 beside it", as_html(paper))] if paper else []
    sections += [("All figures", as_html([*meaning, "", missing, "", *lines]))]
    written = o.out / f"rivals_{name}.html"
    written.write_text(page(title, sections), encoding="utf-8")
    print("\n".join([*lines, "", *found, "", *paper, "", f"{written}: {written.stat().st_size / 1e6:.2f} MB"]), flush=True)
