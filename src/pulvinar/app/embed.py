"""`pulvinar data embed`: embeddings of an experiment's images by an image network, in a file that fits read."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pulvinar.app.data import open_experiment
from pulvinar.core.errors import InputError
from pulvinar.core.storage import refuse_existing
from pulvinar.encoding.embedding_files import write_embedding
from pulvinar.networks.packaged_weights import INSTALL, KNOWN, PACKAGED
from pulvinar.networks.vision_towers import fetched_repositories, load_tower

LIBRARIES = {  # what --network begins with -> package, what it takes, extra
    "timm": ("timm", "timm:MODEL with --weights FILE or the name of fetched ones", "vision"),
    "torchvision": ("torchvision", "torchvision:MODEL with --weights FILE or the name of fetched ones", "vision"),
    "open_clip": ("open-clip-torch", "open_clip:MODEL with --weights FILE or the name of fetched ones", "pictures"),
    "transformers": ("transformers", "transformers:FOLDER_OR_NAME of fetched ones", "pictures"),
}


def embed(
    source: str,
    *,
    out: str,
    network: str | None = None,
    weights: str | None = None,
    layer: str | None = None,
    tokens: bool = False,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Write the embeddings; the facts beside them, and the setting that decodes them.

    network: None takes the network whose trained weights an installed package has (`installed`).
    """
    refuse_existing(out)
    if network is None:
        network, weights = _packaged(weights)
    tower = load_tower(network, weights=weights, layer=layer)
    experiment = open_experiment(source)
    facts = write_embedding(tower, experiment.stimuli, out, tokens=tokens, batch_size=batch_size)
    return {"out": out, "setting": f"feature={out}", **facts}


def _packaged(weights: str | None) -> tuple[str, str]:
    found = next((known.network for known in KNOWN if known.path is not None), None)
    if weights not in (None, PACKAGED):
        raise InputError(f"--weights {weights}: of which network? Give --network too")
    if found is None:
        raise InputError(
            f"--network: none is given, and no package with trained weights is installed. Run: {INSTALL}   for "
            f"{KNOWN[0].network}, or name a network; `pulvinar data embed --list` says what is there"
        )
    return found, PACKAGED


def installed() -> dict[str, Any]:
    """What embeddings can be made with here: trained weights of packages, libraries, and what the hub's client has fetched."""
    packaged = [
        {
            "network": known.network,
            "weights": PACKAGED,
            "package": known.package,
            "installed": known.path is not None,
            "licence": known.licence,
            "trained_on": known.trained_on,
            "get": None if known.path is not None else INSTALL,
        }
        for known in KNOWN
    ]
    libraries = [
        {"library": name, "version": _version(package), "takes": takes, "get": f"pip install 'pulvinar[{extra}]'"}
        for name, (package, takes, extra) in LIBRARIES.items()
    ]
    return {"packaged": packaged, "libraries": libraries, "fetched": fetched_repositories()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed_text(found: dict[str, Any]) -> str:
    """`installed` for a terminal."""
    lines = ["with trained weights in a package:"]
    for known in found["packaged"]:
        state = "installed, and used without --network" if known["installed"] else f"not installed: {known['get']}"
        lines.append(
            f"  --network {known['network']} --weights {known['weights']}   {known['trained_on']}, {known['licence']}; {state}"
        )
    lines.append("libraries:")
    for library in found["libraries"]:
        version = library["version"] or f"not installed: {library['get']}"
        lines.append(f"  {library['library']} {version}   {library['takes']}")
    lines.append("fetched from the hub:")
    lines += [f"  {name}" for name in found["fetched"]] or ["  nothing"]
    return "\n".join(lines)
