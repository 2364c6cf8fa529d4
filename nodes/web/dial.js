// What the Motion Dial has found, with one click on an ordinary node of its own: between what goes
// into the dial and what hung on it, which then needs the dial no more.
import { app } from "../../scripts/app.js";

const DIAL = "CILMotionDial";
const PROPERTY = "cil_ordinary";
const BUTTON = "ordinary node";
const MADE_FROM = ["CILMotionGain", "CILMotionBucket", "CILEarlyStart", "CILMotionSlider", "CILAdaptiveLowPass", "TimeNoiseCondition"]; // a saved graph may hold any text

const titleOf = (kind) => LiteGraph.registered_node_types[kind]?.title ?? kind;
const inputOf = (node, name) => (node.inputs ?? []).findIndex((input) => input.name === name);

const linkOf = (graph, id) => graph.links[id] ?? graph.links.get?.(id);

// The output at the other end of an input: [node, slot], or null.
function originOf(node, name) {
    const link = linkOf(node.graph, node.inputs[inputOf(node, name)]?.link);
    return link ? [node.graph.getNodeById(link.origin_id), link.origin_slot] : null;
}

function replace(dial, { node: kind, widgets, stages }) {
    const graph = dial.graph;
    stages.forEach((stage, i) => {
        const name = stage ? "model_low" : "model";
        const made = LiteGraph.createNode(kind);
        graph.add(made);
        made.pos = [dial.pos[0], dial.pos[1] - (i + 1) * (made.size[1] + 60)];
        for (const widget of made.widgets ?? []) if (widget.name in widgets) widget.value = widgets[widget.name];
        for (const input of made.inputs ?? []) {
            const origin = originOf(dial, input.name === "model" ? name : input.name);
            if (origin && inputOf(dial, input.name) >= 0 && !(input.name in widgets)) origin[0].connect(origin[1], made, inputOf(made, input.name));
        }
        const slot = dial.outputs.findIndex((output) => output.name === name);
        for (const id of [...(dial.outputs[slot]?.links ?? [])]) {
            const link = linkOf(graph, id);
            made.connect(0, graph.getNodeById(link.target_id), link.target_slot);
        }
    });
    if (!dial.outputs.some((output) => output.links?.length)) dial.mode = 2; // nothing hangs on it: muted
    graph.setDirtyCanvas?.(true, true);
}

function offer(dial) {
    let found = null;
    try {
        found = JSON.parse(dial.properties?.[PROPERTY] ?? "null");
    } catch {}
    const known = dial.widgets?.findIndex((widget) => widget.name === BUTTON) ?? -1;
    if (known >= 0) dial.widgets.splice(known, 1);
    if (!found || !MADE_FROM.includes(found.node) || !Array.isArray(found.stages) || Object(found.widgets) !== found.widgets) return;
    const button = dial.addWidget("button", BUTTON, null, () => replace(dial, found));
    button.label = `put it on an ordinary node: ${titleOf(found.node)}`;
    button.serialize = false;
    Object.assign(button.options, { serialize: false });
}

app.registerExtension({
    name: "cil.dial",
    beforeRegisterNodeDef(kind, definition) {
        if (definition.name !== DIAL) return;
        const { onConfigure, onExecuted } = kind.prototype;
        kind.prototype.onConfigure = function () {
            onConfigure?.apply(this, arguments);
            offer(this);
        };
        kind.prototype.onExecuted = function (output) {
            onExecuted?.apply(this, arguments);
            if (!output?.ordinary) return;
            this.properties[PROPERTY] = String([output.ordinary].flat()[0]).slice(0, 4000);
            offer(this);
        };
    },
});
