"""Which printed number belongs beside ours: the paper's for the same images, network, method and settings."""

from collections.abc import Mapping
from typing import Any

from foundling.discovery import METHODS
from foundling.report.published import published

EVAL_SETS = {
    ("voc07", "trainval"): "VOC07_trainval",
    ("voc12", "trainval"): "VOC12_trainval",
    ("coco20k", "train"): "COCO20k",
    ("voc07", "trainval_noh"): "VOC07_noh",
    ("voc12", "trainval_noh"): "VOC12_noh",
}
NETWORKS = {  # our name -> the papers' columns backbone and pretraining
    "dino_vits16": ("ViT-S/16", "DINO"),
    "dino_vits8_300ep": ("ViT-S/8", "DINO"),
    "dino_vitb16": ("ViT-B/16", "DINO"),
    "dino_resnet50": ("ResNet50", "DINO"),
    "supervised_resnet50": ("ResNet50", "supervised"),
    "supervised_vgg16": ("VGG16", "supervised"),
    "deit_vits16": ("DeiT", "supervised"),
}
HEADS = {"bcc": "head selection per image: BCC", "haiou": "head selection per image: HAIoU"}
LETTERS = {"queries": "q", "keys": "k", "values": "v"}
OVERLAP_NETWORKS = {  # our name -> Odin's columns backbone and method
    "dino_resnet50": ("ResNet-50", "DINO"),
    "supervised_resnet50": ("ResNet-50", "Supervised"),
    "dino_vitb8": ("ViT-B/8", "DINO"),
}
OVERLAP_SETTINGS = {  # network and grid of features -> Odin's column setting
    ("ResNet-50", (32, 32)): "stride-32 features",
    ("ResNet-50", (256, 256)): "ResNet-50 with FPN",
    ("ViT-B/8", (56, 56)): "56x56 feature grid",
}

Network = tuple[str, str] | None


def published_corloc(dataset: str, split: str, backbone: str, settings: Mapping[str, Any]) -> float | None:
    """The CorLoc (percent) a paper prints for this dataset, network and method, or ``None`` where none does.

    ``settings`` are those of one label of the notebooks: ``{"method": "lost", "k": 100}``; what is left out has the
    method's default. Rows: LOST Tables 1, 2, 5, 6 and 8, and its text B.5 (which does not say on which images: given
    for VOC07); for TokenCut box refinement's Table 4, which quotes it. DINO-seg's numbers are those of its published
    component rule, so only ``rule="reference"`` has one; Selective Search's settings are not printed: our defaults
    stand for them.
    """
    eval_set, network = EVAL_SETS.get((dataset, split)), NETWORKS.get(backbone)
    if eval_set is None:
        return None
    name, given = settings["method"], {key: value for key, value in settings.items() if key != "method"}
    selector = SELECTORS[name](network, eval_set, {**METHODS[name].defaults, **given}) if name in SELECTORS else None
    rows = published(**{"eval_set": eval_set, "metric": "CorLoc", **selector}) if selector else []
    return rows[0]["value"] if rows else None


def published_overlap(
    dataset: str, split: str, backbone: str, grid: tuple[int, int], *, method: str | None = None, filtered: bool = False
) -> dict[str, float] | None:
    """The ``abo_i``, ``abo_c`` and ``or`` (percent) that Odin prints for this network, or ``None`` where it does not.

    Rows of Table 4, or of Table A.1 with ``filtered`` (small masks left out). The images are those of COCO; the paper
    does not say which: given for ``coco``, ``val2017``. ``grid`` are the rows and columns of features, which tell its
    settings apart: 32×32 of a ResNet-50 (1024 pixels, stride 32), 256×256 of one with a feature pyramid, 56×56 of a
    ViT-B/8 (448 pixels). ``method`` is the table's name of other weights in the same network: "Random init",
    "DetConB", "Odin", "Odin†"; by default those of ``backbone``.
    """
    network, own = OVERLAP_NETWORKS.get(backbone, (None, None))
    setting = OVERLAP_SETTINGS.get((network, grid)) if network is not None else None
    if (dataset, split) != ("coco", "val2017") or setting is None:
        return None
    rows = published(
        paper="odin",
        table="Table A.1" if filtered else "Table 4",
        method=method or own,
        backbone=network,
        setting=f"ground-truth masks filtered; {setting}" if filtered else setting,
    )
    return {row["metric"].lower(): row["value"] for row in rows} or None


def _lost(network: Network, eval_set: str, settings: dict[str, Any]) -> dict[str, str] | None:
    if network is None or settings["centre"]:
        return None
    row = {"paper": "lost", "method": "LOST", "backbone": network[0], "pretraining": network[1]}
    usual = settings == {"k": 100, "facet": "keys", "seed_similarity": "facet", "expansion": "facet", "centre": False}
    if network[0] == "DeiT":
        return row | {"table": "Text B.5", "eval_set": "not_stated"} if usual and eval_set == "VOC07_trainval" else None
    if usual:
        return row | {"table": "Table 8" if eval_set.endswith("_noh") else "Table 2"}
    seed = (
        f"a_pq with f={LETTERS.get(settings['facet'])}" if settings["seed_similarity"] == "facet" else "a~_pq (Eq. 4)"
    )
    grown = settings["facet"] if settings["expansion"] == "facet" else settings["expansion"]
    box = "S~ and m~" if grown == "qk" else f"f={LETTERS.get(grown)}"
    setting = f"underlying=single-object-discovery; seed: {seed}; expansion and box: {box}; k={settings['k']}"
    return row | {"table": "Table 5", "setting": setting}


def _dino_seg(network: Network, eval_set: str, settings: dict[str, Any]) -> dict[str, str] | None:
    if network != ("ViT-S/16", "DINO") or settings["rule"] != "reference":
        return None
    head = settings["head"]
    setting = f"underlying=single-object-discovery; {HEADS.get(head, f'head={head}')}"
    return {"paper": "lost", "table": "Table 6", "setting": setting}


def _tokencut(network: Network, eval_set: str, settings: dict[str, Any]) -> dict[str, str] | None:
    if network != ("ViT-S/16", "DINO") or settings != {"tau": 0.2, "facet": "keys", "centre": False}:
        return None
    return {"paper": "box_refinement", "table": "Table 4", "method": "TokenCut"}


def _selective_search(network: Network, eval_set: str, settings: dict[str, Any]) -> dict[str, str] | None:
    if settings != METHODS["selective_search"].defaults:
        return None
    return {"paper": "lost", "table": "Table 1", "method": "Selective Search"}


SELECTORS = {"lost": _lost, "dino_seg": _dino_seg, "tokencut": _tokencut, "selective_search": _selective_search}
