// What a node says about its last run, in a field of the node that stays: after the job, in the
// saved workflow (a property of the node) and when the page is opened again. Always as text.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { ComfyWidgets } from "../../scripts/widgets.js";
import { translated } from "./chinese.js";

const FOLDER = decodeURIComponent(import.meta.url.split("/").at(-2));
const NAME = "note";
const PROPERTY = "cil_note";
const LINE = 15; // pixels
const MOST = 14; // lines shown at once, more of them scroll
const LONGEST = 4100; // characters: a graph from a stranger may hold any text
const waiting = {}; // notes for graphs that are not open: {graph's id: {node's id: text}}

let changed = false; // since the page last kept its draft of the graph

const root = () => app.rootGraph ?? app.graph;

// A node by its id at the server, where one in a subgraph is called "outer:inner".
function find(id) {
    let graph = root(), node;
    for (const part of String(id).split(":")) {
        node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
        graph = node?.subgraph;
    }
    return node;
}

function height(text, width) {
    const across = Math.max(20, (width - 40) / 6.2);
    const lines = text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / across)), 0);
    return LINE * Math.min(lines, MOST) + 14;
}

function widgetOf(node) {
    const known = node.widgets?.find((w) => w.name === NAME);
    if (known) return known;
    const { widget } = ComfyWidgets.STRING(node, NAME, ["STRING", { multiline: true }], app);
    widget.serialize = false; // not among the saved values of the inputs
    Object.assign(widget.options, { serialize: false, read_only: true }); // nor in what is queued
    const field = widget.inputEl ?? widget.element;
    if (field) {
        field.readOnly = true;
        field.placeholder = "";
        field.style.opacity = 0.8;
    }
    widget.options.getMinHeight = () => height(String(widget.value ?? ""), node.size[0]);
    widget.options.getMaxHeight = widget.options.getMinHeight;
    return widget;
}

function show(node, text) {
    if (!node.isOfMotionPack || typeof text !== "string" || !text) return;
    text = text.slice(0, LONGEST);
    changed ||= node.properties[PROPERTY] !== text;
    node.properties[PROPERTY] = text; // in English: a graph goes to others
    const widget = widgetOf(node);
    widget.value = translated(text);
    const [width, tall] = node.computeSize();
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], tall)]);
    node.setDirtyCanvas?.(true, true);
}

// The page keeps a draft of what a person changes; a note is told to it once, at the end of a job.
function keepDraft() {
    if (!changed) return;
    changed = false;
    const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
    (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

app.registerExtension({
    name: "cil.notes",
    setup() {
        for (const end of ["execution_success", "execution_error", "execution_interrupted"])
            api.addEventListener(end, () => setTimeout(keepDraft, 100));
        api.addEventListener("cil.note", ({ detail }) => {
            const other = detail.workflow && root().id && detail.workflow !== root().id;
            if (other) (waiting[detail.workflow] ??= {})[detail.node] = detail.text;
            else {
                const node = find(detail.node);
                if (node) show(node, detail.text);
            }
        });
    },
    afterConfigureGraph() {
        for (const [id, text] of Object.entries(waiting[root().id] ?? {})) {
            const node = find(id);
            if (node) show(node, text);
        }
        delete waiting[root().id];
    },
    beforeRegisterNodeDef(kind, definition) {
        if (definition.python_module !== `custom_nodes.${FOLDER}`) return;
        kind.prototype.isOfMotionPack = true;
        const { onConfigure, onExecuted } = kind.prototype;
        kind.prototype.onConfigure = function (saved) {
            onConfigure?.apply(this, arguments);
            const before = changed;
            show(this, saved?.properties?.[PROPERTY]);
            changed = before;
        };
        kind.prototype.onExecuted = function (output) {
            onExecuted?.apply(this, arguments);
            const later = Object.values(output?.text_at_sampling?.[0] ?? {});
            show(this, later.at(-1) ?? [output?.text].flat()[0]);
        };
    },
});
