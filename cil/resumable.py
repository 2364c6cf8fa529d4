"""Files of work under way: read back, and held against the settings of whoever goes on with it."""

from pathlib import Path

from safetensors import SafetensorError, safe_open


def read(path, wanted, what, hint=""):
    """A safetensors file of the format `wanted` -> (tensors, metadata). Raises ValueError that calls it `what`."""
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            strings = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if strings.get("format") == wanted else {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as {what}: {error}") from None
    if strings.get("format") != wanted:
        raise ValueError(f"{path.name} is not {what}{hint}")
    return tensors, strings


def check_settings(name, found, wanted):
    """Raise ValueError, naming the keys, unless two dicts of settings are equal."""
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if differing:
        raise ValueError(f"{name} was begun with other settings ({', '.join(differing)}): finish it with those, or delete it to begin anew")
