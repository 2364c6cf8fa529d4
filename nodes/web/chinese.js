// What the pack says while it runs, notes and errors, in Chinese where the page is. The server says it
// in English, whoever reads it; zh.json has every sentence, {0}, {1} ... standing for what is filled in.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const JOINTS = [["; ", "；"], [". ", "。"], [": ", "："]]; // between sentences that were put together
const DEEPEST = 4; // what is filled in may itself be a sentence, and so on
let sentences = []; // [[the literal parts of a sentence, its translation]], the more literal first

export const isChinese = () => String(app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? "").startsWith("zh");

export function learn(known) {
    const parts = (sentence) => sentence.split(/\{\d+\}/);
    const literal = (sentence) => parts(sentence).join("").length;
    sentences = Object.entries(known)
        .sort(([a], [b]) => literal(b) - literal(a) || (a < b ? -1 : 1))
        .map(([english, translation]) => [parts(english), english.match(/\d+(?=\})/g) ?? [], translation]);
}

// What is filled in, if a text is this sentence: a list, or null. Leftmost first, in linear time: a saved graph may hold any text.
function filling([first, ...others], text) {
    if (!others.length) return text === first ? [] : null;
    if (!text.startsWith(first)) return null;
    const found = [], last = others.pop();
    let at = first.length;
    for (const part of others) {
        const next = text.indexOf(part, at);
        if (next < 0) return null;
        found.push(text.slice(at, next));
        at = next + part.length;
    }
    if (!text.endsWith(last) || text.length - last.length < at) return null;
    return [...found, text.slice(at, text.length - last.length)];
}

// The text as one sentence, or null. joined: whether what is filled in may itself be sentences.
function asOne(text, depth, joined) {
    for (const [parts, numbers, translation] of sentences) {
        const found = filling(parts, text);
        if (!found || (!joined && found.some((value) => JOINTS.some(([joint]) => value.includes(joint))))) continue;
        const of = Object.fromEntries(numbers.map((number, i) => [number, translated(found[i], depth + 1)]));
        return translation.replace(/\{(\d+)\}/g, (whole, number) => of[number] ?? whole);
    }
    return null;
}

export function translated(text, depth = 0) {
    if (depth > DEEPEST || !/[a-z]/.test(text)) return text;
    if (text.includes("\n")) return text.split("\n").map((line) => translated(line, depth)).join("\n");
    const one = asOne(text, depth, false);
    if (one !== null) return one;
    const [joint, between] = JOINTS.find(([joint]) => text.includes(joint)) ?? [];
    if (joint) {
        const before = text.split(joint), after = before.map((part) => translated(part, depth));
        const kept = after.filter((part, i) => part === before[i]).length;
        return kept ? asOne(text, depth, true) ?? (kept < after.length ? after.join(between) : text) : after.join(between);
    }
    const open = text.slice(0, -1), whole = text.endsWith(".") ? translated(open, depth) : open;
    return whole === open ? text : whole + "。";
}

// Pages differ in when they know their language: asked again until they do.
async function prepare() {
    if (sentences.length || !isChinese()) return;
    try {
        learn(await (await fetch(new URL("./zh.json", import.meta.url))).json());
    } catch {} // then it is said in English
}

app.registerExtension({
    name: "cil.chinese",
    init: prepare,
    async setup() {
        await prepare();
        api.addEventListener("execution_error", async ({ detail }) => {
            const kind = LiteGraph.registered_node_types[detail?.node_type];
            if (!kind?.prototype?.isOfMotionPack) return;
            await prepare();
            const message = String(detail.exception_message ?? "").trim();
            const told = translated(message);
            if (told !== message) app.extensionManager?.toast?.add({ severity: "error", summary: kind.title, detail: told, life: 60000 });
        });
    },
});
