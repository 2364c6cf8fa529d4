// What these nodes make is kept, and found again by its settings: a seed that the page changes
// after each run would begin it anew. So new ones come with "fixed"; people can set it otherwise.
import { app } from "../../scripts/app.js";

const KEPT = ["CILPrepareClips", "CILTimeNoiseTrain", "CILEstimateMoments", "CILMotionDial"];

app.registerExtension({
    name: "cil.fixedSeeds",
    nodeCreated(node) {
        if (!KEPT.includes(node.comfyClass)) return;
        for (const widget of node.widgets ?? [])
            for (const control of widget.linkedWidgets ?? []) control.value = "fixed";
    },
});
