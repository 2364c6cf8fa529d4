"""Property-based settings: every input of every node of object_info, given what it takes and what it does not."""

import json

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .graphs import CHEAP, MISSING, choices_of, inputs_of, prompt_of, watched
from .things import THINGS
from .verdict import judge, outcome

PAYLOADS = [
    "<img src=x onerror=window.ran=1>",
    "<svg/onload=window.ran=1>",
    "\"><script>window.ran=1</script><iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    '[[<img src=x onerror=window.ran=1>|javascript:window.ran=1]] http://x/"onmouseover=window.ran=1',
    "http://a.example/__LNK0__ [[z|https://x.example/ onmouseover=window.ran=1 style=position:fixed;inset:0 y=]]",
]
TEXTS = st.one_of(
    st.sampled_from(["", " ", "a", "../x", "/etc/passwd", "CON", "a" * 5000, "\0", "\u202eevil", "x\ny", "nan", "1:0:3", "0,,1", "{}", "[1e999]", *PAYLOADS]),
    st.text(max_size=40),
)
KIND_WORDS = {
    "IMAGE": ["picture", "frame", "image", "clip"],
    "LATENT": ["latent"],
    "SIGMAS": ["sigma", "schedule"],
    "CONDITIONING": ["condition"],
    "STRING": ["name", "folder", "start", "number", "curve", "JSON"],
}


@st.composite
def change(draw, name, one, spec, needed):
    """-> (a value for an input, whether it must be refused)."""
    kind, choices = spec[0], choices_of(spec)
    options = spec[1] if len(spec) > 1 else {}
    if draw(st.integers(0, 2)) == 0:
        what = draw(st.sampled_from(sorted(THINGS)))
        may = THINGS[what][1]
        fine = (
            kind in may
            or (not needed and "OPTIONAL" in may)
            or (name == "CILEstimateMoments" and "ESTIMATE" in may)
            or (choices and what == "text" and "a text" in choices)
        )
        if what == "number" and kind in ("INT", "FLOAT"):
            fine = options.get("min", -1e9) <= 5 <= options.get("max", 1e9)
        if what == "half" and kind == "FLOAT":
            fine = options.get("min", -1e9) <= 0.5 <= options.get("max", 1e9)
        return {"thing": what}, not fine
    if choices is not None:
        legal = draw(st.booleans()) and bool(choices)
        value = draw(st.sampled_from(choices) if legal else st.one_of(TEXTS, st.integers(), st.booleans(), st.none()))
        return value, value is not None and not any(type(value) is type(c) and value == c for c in choices)
    if kind in ("INT", "FLOAT"):
        low, high, usual = options.get("min", -10), options.get("max", 10), options.get("default", 1)
        usual = CHEAP.get(one, usual)
        value, bad = draw(
            st.sampled_from(
                [(low, False), (usual, False), (low - 1, "min" in options), (high * 2 + 1, "max" in options), (1e308, True), (-(10**30), "min" in options), (float("nan"), True),
                 (float("inf"), True), ("abc", True), ("", True), ({"a": 1}, True)] + ([(usual + 0.5, False)] if kind == "INT" else [])
            )
        )  # fmt: skip
        return value, bad
    if kind == "BOOLEAN":
        return draw(st.sampled_from([(True, False), (False, False), ("yes", False), (2, False), ({"a": 1}, False), (0, False)]))
    if kind == "STRING":
        value = draw(st.one_of(TEXTS, st.integers(), st.floats()))
        return value, False
    return draw(st.sampled_from([(MISSING, needed), (7, True), ("a text", True), ({"samples": 3}, True)]))


@st.composite
def cases(draw, info, names):
    name = draw(st.sampled_from(names))
    of = inputs_of(info, name)
    chosen = draw(st.lists(st.sampled_from(sorted(of)), min_size=1, max_size=3, unique=True))
    changes = {one: draw(change(name, one, *of[one])) for one in chosen}
    return name, changes


def run(host, info, names, table, count, of_seed, progress=lambda n: None, plain=True):
    """So many cases against the host. plain: each node as it is first."""
    done = 0

    @seed(of_seed)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases(info, names))
    def one(case):
        nonlocal done
        name, changes = case
        values, more = {}, {}
        for k, (input_name, (value, _)) in enumerate(changes.items()):
            if isinstance(value, dict) and "thing" in value:
                more[f"t{k}"] = {"class_type": "CampaignThing", "inputs": {"what": value["thing"]}}
                value = [f"t{k}", 0]
            values[input_name] = value
        prompt = watched(info, prompt_of(info, name, values, cheap=True)) | more
        bad = any(must for _, must in changes.values())
        of = inputs_of(info, name)
        words = [*changes, *(w for one_ in of for w in KIND_WORDS.get(of[one_][0][0], [])), *of]
        entry, trouble = outcome(host, prompt)
        verdict, told = judge(entry, trouble, bad, words)
        shown = {k: "left out" if v[0] is MISSING else v[0] for k, v in changes.items()}
        table.add("settings", verdict, f"{name} {json.dumps(shown, default=str)[:300]}", told)
        done += 1
        progress(done)

    for name in names if plain else ():
        verdict, told = judge(*outcome(host, watched(info, prompt_of(info, name, {}, cheap=True))), False, list(inputs_of(info, name)))
        table.add("settings", verdict, f"{name} as it is", told)
    one()
