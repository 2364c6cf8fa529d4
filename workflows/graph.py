"""A workflow written down once, and its two forms: the page's JSON and the /prompt API's.

The page's form needs what only the host knows (the order of a node's widgets, the types of
its slots); `info` below is the host's /object_info.
"""

import math
import re
import uuid
from dataclasses import dataclass

PACK = {"cnr_id": "i2v-motion", "ver": "0.1.0"}
CORE = {"cnr_id": "comfy-core", "ver": "0.3.75"}
INPUT, OUTPUT = -10, -20  # the ends of a blueprint, as the page numbers them
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
GAP = 60
NOTE, OWN = {"color": "#432", "bgcolor": "#653"}, {"color": "#323", "bgcolor": "#535"}  # the page's yellow and purple
FRAME, HEAD, LETTERS = 20, 90, 24  # of a group: pixels around its nodes, above them (their own titles too), and its title's height
SCREEN, CORNER = (1820, 950), (80, 150)  # what the page leaves of 1920 x 1080, and where the graph begins in it: beside its bar and below its tabs
READABLE = 0.6  # the zoom below which the page leaves a node's words out
RESULT = "Result"
# what a step is called, by the first of these kinds of nodes that a column has; columns of one step beside each other share a frame
STEPS = {
    "CILTimeNoiseTrain": "Training",
    "CILPrepareClips|CILDemoClips|CILEstimateMoments|CILSaveMoments": "Clips",
    "LeakageProbe|CILStartSweep|CILMotionScore|CILCompareClips|CILDemoCompare": "Measure and compare",
    "CIL|TimeNoise|Truncated|AnalyticInit": "More motion",
    "KSampler|SamplerCustom": "Sampling",
    "Decode": "Frames",
    "Save|CreateVideo|Preview": RESULT,
    "": "What is asked",
}


class Node:
    def __init__(self, graph, number, kind, title, inputs, models, size):
        self.graph, self.number, self.kind, self.title = graph, number, kind, title
        self.inputs, self.models, self.size = inputs, models, size

    def __getitem__(self, output):
        """An output by its name, as a source for another node's input."""
        return (self, output)


@dataclass(frozen=True)
class Given:
    """A value that a blueprint is given from outside: a socket or a widget of the one node that stands for it.

    name: of the input. label: as the page shows it. value: what its widget holds at first.
    """

    name: str
    label: str = ""
    value: object = None


class Graph:
    """Nodes in columns, left to right; a note is a node without sockets."""

    def __init__(self, name, title):
        self.name, self.title = name, title
        self.columns, self.nodes = [[]], []

    def column(self):
        """Begin the next column."""
        self.columns.append([])

    def node(self, kind, title=None, models=(), size=None, **inputs):
        node = Node(self, len(self.nodes) + 1, kind, title, inputs, models, size)
        self.nodes.append(node)
        self.columns[-1].append(node)
        return node

    def note(self, text, size=(380, 200)):
        self.columns[-1].append((text, size))

    def also(self, text, size=(370, 260)):
        """One more note, beside the first."""
        self.columns[0].append((text, size))

    # ---- the /prompt form ----

    def api(self, info):
        def value(v):
            v = v.value if isinstance(v, Given) else v
            return [str(v[0].number), _output_index(info, v)] if isinstance(v, tuple) else v

        prompt = {}
        for node in self.nodes:
            _check(info, node)
            prompt[str(node.number)] = {
                "class_type": node.kind,
                "inputs": {name: value(v) for name, v in _with_defaults(info, node).items()},
                "_meta": {"title": node.title or info[node.kind]["display_name"] or node.kind},
            }
        return prompt

    # ---- the page's form ----

    def page(self, info):
        links, given = [], {}
        incoming = {}  # (node number, input name) -> link id
        outgoing = {}  # (node number, output index) -> link ids
        for node in self.nodes:
            for name, v in node.inputs.items():
                if isinstance(v, Given):
                    link = len(links) + 1
                    kind = next(k for n, k, _ in _specification(info, node.kind) if n == name)
                    links.append([link, INPUT, given.setdefault(v, len(given)), node.number, name, "COMBO" if isinstance(kind, list) else kind])
                    incoming[node.number, name] = link
                elif isinstance(v, tuple):
                    link, index = len(links) + 1, _output_index(info, v)
                    kind = info[v[0].kind]["output"][index]
                    links.append([link, v[0].number, index, node.number, name, kind if isinstance(kind, str) else "COMBO"])
                    incoming[node.number, name] = link
                    outgoing.setdefault((v[0].number, index), []).append(link)
        placed, groups, scale = self._placed(lambda node: self._page_node(info, node, incoming, outgoing))
        slots = {n["id"]: [i["name"] for i in n["inputs"]] for n in placed}
        for link in links:
            link[4] = slots[link[3]].index(link[4])
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"i2v-motion/{self.name}")),
            "revision": 0,
            "last_node_id": len(placed),
            "last_link_id": len(links),
            "nodes": sorted(placed, key=lambda n: n["id"]),
            "links": links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": scale, "offset": [round(edge / scale) for edge in CORNER]}},
            "version": 0.4,
        }

    def _placed(self, made):
        """The page's nodes and groups, with their places, and the zoom at which a screen shows all of them. made: a Node -> the page's.

        Above the notes and beside them the result, below them the other columns, in so many parts that the zoom is the largest.
        """
        notes = [item for item in self.columns[0] if not isinstance(item, Node)]
        columns = [[made(item) for item in column if isinstance(item, Node)] for column in self.columns]
        above = [_note(len(self.nodes) + i, *note) for i, note in enumerate(notes, 1)]
        steps = ["Model and picture", *(_step([n["type"] for n in column]) for column in columns[1:])]
        result = columns.pop() if notes and steps[-1] == RESULT else []
        right = _in_a_row(above, 0, 0)
        x = _in_a_row(result, right + FRAME, HEAD)
        high = lambda nodes: max((n["pos"][1] + n["size"][1] + GAP for n in nodes), default=0)
        last = [RESULT, right + FRAME, x - GAP, HEAD, high(result)] if result else None
        top = high(above + result) + HEAD if above else 0
        zoom = lambda most: _zoom(_beside(columns, steps, top, most), x)
        groups = _beside(columns, steps, top, max(_heights(columns), key=zoom))
        scale = math.floor(100 * min(max(_zoom(groups, x), READABLE), 1)) / 100
        placed = [*above[:1], *(n for column in columns for n in column), *result, *above[1:]]
        frames = [_frame(i, *group) for i, group in enumerate([*groups, *([last] if last else [])], 1)]
        return [n | {"order": order} for order, n in enumerate(placed)], frames, scale

    # ---- a blueprint: all of it as one node ----

    def blueprint(self, info, output, category, description):
        """The page's form of a subgraph that stands in the list of nodes: what is Given are its inputs, `output` its output."""
        named = lambda what: str(uuid.uuid5(uuid.NAMESPACE_URL, f"i2v-motion/blueprint/{self.name}/{what}"))
        inside = self.page(info)
        links = [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link)) for link in inside["links"]]
        given = list(dict.fromkeys(v for node in self.nodes for v in node.inputs.values() if isinstance(v, Given)))
        of = lambda i: [link for link in links if link["origin_id"] == INPUT and link["origin_slot"] == i]
        index, last = _output_index(info, output), len(links) + 1
        kind = info[output[0].kind]["output"][index]
        links.append({"id": last, "origin_id": output[0].number, "origin_slot": index, "target_id": OUTPUT, "target_slot": 0, "type": kind})
        next(n for n in inside["nodes"] if n["id"] == output[0].number)["outputs"][index]["links"].append(last)
        right = max(n["pos"][0] + n["size"][0] for n in inside["nodes"])
        inputs = [
            {"id": named(v.name), "name": v.name, "type": of(i)[0]["type"], "linkIds": [link["id"] for link in of(i)], "label": v.label or v.name, "pos": [-140, 20 + 20 * i]}
            for i, v in enumerate(given)
        ]  # fmt: skip
        subgraph = {
            "id": named("graph"), "version": 1, "revision": 0, "config": {}, "name": self.title,
            "state": {"lastGroupId": 0, "lastNodeId": inside["last_node_id"], "lastLinkId": last, "lastRerouteId": 0},
            "inputNode": {"id": INPUT, "bounding": [-260, 0, 140, 40 + 20 * len(given)]},
            "outputNode": {"id": OUTPUT, "bounding": [right + GAP, 0, 120, 60]},
            "inputs": inputs,
            "outputs": [{"id": named("output"), "name": kind, "type": kind, "linkIds": [last], "pos": [right + 2 * GAP, 20]}],
            "widgets": [], "nodes": inside["nodes"], "groups": [], "links": links, "extra": {}, "category": category, "description": description,
        }  # fmt: skip
        slots = [{"name": v.name, "label": v.label or v.name, "type": i["type"], "link": None} for v, i in zip(given, inputs)]
        widgets = [(v, slot) for v, slot in zip(given, slots) if v.value is not None]
        for v, slot in widgets:
            slot["widget"] = {"name": v.name}
        outside = {
            "id": inside["last_node_id"] + 1, "type": subgraph["id"], "title": self.title, "pos": [0, 0], "size": [400, 80 + 28 * len(given)], "flags": {}, "order": 0,
            "mode": 0, "inputs": slots, "outputs": [{"name": kind, "type": kind, "links": []}],
            "properties": {"proxyWidgets": [["-1", v.name] for v, _ in widgets], **PACK}, "widgets_values": [v.value for v, _ in widgets],
        }  # fmt: skip
        return {
            "id": named("file"), "revision": 0, "last_node_id": outside["id"], "last_link_id": last, "nodes": [outside], "links": [], "groups": [],
            "definitions": {"subgraphs": [subgraph]}, "config": {}, "extra": {}, "version": 0.4,
        }  # fmt: skip

    def _page_node(self, info, node, incoming, outgoing):
        _check(info, node)
        values, inputs, widgets = [], [], 0
        filled = _with_defaults(info, node)
        for name, kind, options in _specification(info, node.kind):
            is_widget = _is_widget(kind, options)
            link = incoming.get((node.number, name))
            if not is_widget or link:
                slot = {"name": name, "type": "COMBO" if isinstance(kind, list) else kind, "link": link}
                inputs.append(slot | ({"widget": {"name": name}} if is_widget else {}))
            if is_widget:
                default, value = options.get("default", kind[0] if isinstance(kind, list) and kind else None), filled.get(name)
                value = value.value if isinstance(value, Given) else value
                values.append(default if isinstance(value, tuple) or value is None else value)
                widgets += 1
                if options.get("control_after_generate") or name in ("seed", "noise_seed"):
                    values.append("fixed")
                    widgets += 1
        outputs = [
            {"name": name, "type": kind if isinstance(kind, str) else "COMBO", "links": outgoing.get((node.number, i), [])}
            for i, (name, kind) in enumerate(zip(info[node.kind]["output_name"], info[node.kind]["output"]))
        ]
        ours = "custom_nodes" in info[node.kind].get("python_module", "")
        properties = {"Node name for S&R": node.kind, **(PACK if ours else CORE)}
        if node.models:
            properties["models"] = [dict(m) for m in node.models]
        sockets = sum(1 for i in inputs if "widget" not in i)
        height = 40 + 22 * max(sockets, len(outputs)) + 28 * widgets
        made = {
            "id": node.number, "type": node.kind, "size": list(node.size or (320, height)), "flags": {}, "mode": 0,
            "inputs": inputs, "outputs": outputs, "properties": properties, "widgets_values": values,
        }  # fmt: skip
        return made | ({"title": node.title} if node.title else {}) | (OWN if ours else {})


def _step(kinds):
    """What the nodes of a column do."""
    return next(step for known, step in STEPS.items() if any(re.search(known, kind) for kind in kinds))


def _stacked(nodes, x, y):
    """Put nodes below each other -> the right end of the widest, and where one more would stand below them."""
    width = 0
    for node in nodes:
        node["pos"] = [x, y]
        y += node["size"][1] + GAP
        width = max(width, node["size"][0])
    return x + width, y


def _heights(columns):
    """At which heights a column may end, the greatest first: those of all its nodes together, and of fewer."""
    stacked = {sum(n["size"][1] + GAP for n in column[i:j]) for column in columns for j in range(len(column) + 1) for i in range(j)}
    return sorted(stacked, reverse=True)


def _parts(column, most):
    """A column in as many as it takes that none is higher than `most`, or that has one node."""
    parts, height = [], math.inf
    for node in column:
        height += node["size"][1] + GAP
        if height > most:
            parts, height = [*parts, []], node["size"][1] + GAP
        parts[-1].append(node)
    return parts


def _beside(columns, steps, top, most):
    """Put columns beside each other, those higher than `most` in parts -> the groups: step, left, right, top, bottom of each."""
    groups, x = [], 0
    for step, column in zip(steps, columns):
        for part in _parts(column, most):
            left, (x, bottom) = x, _stacked(part, x, top)
            if not groups or groups[-1][0] != step:
                groups.append([step, left, x, top, bottom])
            groups[-1][2], groups[-1][4] = x, max(groups[-1][4], bottom)
            x += GAP
    return groups


def _zoom(groups, right):
    """How large a screen shows all of a graph. right: the end of what stands above the groups."""
    wide, high = max(right, *(g[2] for g in groups)) + 2 * FRAME, max(g[4] for g in groups) + HEAD
    return min(SCREEN[0] / wide, SCREEN[1] / high)


def _in_a_row(nodes, x, y):
    """Put nodes beside each other -> where one more would stand."""
    for node in nodes:
        node["pos"] = [x, y]
        x += node["size"][0] + GAP
    return x


def _note(number, text, size):
    return {
        "id": number, "type": "MarkdownNote", "size": list(size), "flags": {}, "mode": 0, "inputs": [], "outputs": [], "properties": {},
        "widgets_values": [text], **NOTE,
    }  # fmt: skip


def _frame(number, step, left, right, top, bottom):
    """The page's group around the columns of a step."""
    bounding = [left - FRAME, top - HEAD, right - left + 2 * FRAME, bottom - GAP - top + HEAD + FRAME]
    return {"id": number, "title": f"{number} {step}", "bounding": bounding, "color": "#3f789e", "font_size": LETTERS, "flags": {}}


def _specification(info, kind):
    """The inputs of a node: (name, type or list of options, options), required ones first."""
    for group in ("required", "optional"):
        for name, spec in info[kind]["input"].get(group, {}).items():
            kind_of, options = spec[0], (spec[1] if len(spec) > 1 else {})
            if kind_of == "COMBO":
                kind_of = options.get("options", [])
            yield name, kind_of, options


def _is_widget(kind, options):
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def _with_defaults(info, node):
    """A node's inputs with the host's defaults for the widgets that the recipe leaves out."""
    filled = {}
    for name, kind, options in _specification(info, node.kind):
        if name in node.inputs:
            filled[name] = node.inputs[name]
        elif _is_widget(kind, options):
            filled[name] = options.get("default", kind[0] if isinstance(kind, list) and kind else None)
    return filled


def _output_index(info, source):
    node, name = source
    names = info[node.kind]["output_name"]
    if name not in names:
        raise KeyError(f"{node.kind} has no output '{name}', only {names}")
    return names.index(name)


def _check(info, node):
    if node.kind not in info:
        raise KeyError(f"the host has no node '{node.kind}'")
    known = {name for name, _, _ in _specification(info, node.kind)}
    unknown = set(node.inputs) - known
    if unknown:
        raise KeyError(f"{node.kind} has no input {sorted(unknown)}, only {sorted(known)}")
