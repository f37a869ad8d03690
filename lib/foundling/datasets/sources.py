"""Where the published datasets come from, what their archives hold, and where it belongs in the data folder."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to download; ``checksum`` is its MD5 or SHA-256 (hexadecimal), ``size`` in bytes."""

    url: str
    checksum: str
    size: int

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def algorithm(self) -> str:
        return {32: "md5", 64: "sha256"}[len(self.checksum)]


@dataclass(frozen=True)
class Part:
    """What archives hold (unpacked together): ``inside`` them, the ``places`` in the data folder where it is looked
    for (it is put in the first), and how many files each of its subfolders holds, at any depth, when it is whole."""

    archives: tuple[Archive, ...]
    inside: str
    places: tuple[str, ...]
    counts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Source:
    """A dataset as published; ``note`` says what else to know, ``by_hand`` how to get what has no archive to fetch."""

    parts: tuple[Part, ...]
    page: str
    licence: str
    note: str = ""
    by_hand: str = ""


def voc_source(year: int, files: int, *archives: Archive) -> Source:
    """Pascal VOC of one year, whose archives hold ``files`` images and as many annotations."""
    name = f"VOC{year}"
    places = (f"voc/VOCdevkit/{name}", f"voc/{name}", f"voc/{name}/VOCdevkit/{name}")
    part = Part(archives, f"VOCdevkit/{name}", places, (("JPEGImages", files), ("Annotations", files)))
    page = f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/"
    return Source((part,), page, "annotations for research; images under Flickr's terms of use")


def coco_source(split: str, images: int, archive: Archive, annotations: Archive) -> Source:
    """A split of COCO with so many ``images``; the archive of its annotations holds other splits' too."""
    json_file = f"annotations/instances_{split}.json"
    parts = (
        Part((archive,), split, (f"coco/{split}",), (("", images),)),
        Part((annotations,), json_file, (f"coco/{json_file}",)),
    )
    licence = "annotations CC BY 4.0; images under Flickr's terms of use"
    return Source(parts, "https://cocodataset.org/#download", licence, f"split {split}")


VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC"
COCO_URL = "http://images.cocodataset.org"  # the https certificate of this host is not valid: trust rests on the MD5
DAVIS_URL = "https://data.vision.ee.ethz.ch/csergi/share/davis"

# MD5 of VOC as in torchvision.datasets.voc; of COCO, and SHA-256 of DAVIS, as given in several public projects
SOURCES: dict[str, Source] = {
    "voc07": voc_source(
        2007,
        9_963,
        Archive(f"{VOC_URL}/voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", 460_032_000),
        Archive(f"{VOC_URL}/voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", 451_020_800),
    ),
    "voc12": voc_source(
        2012,
        17_125,
        Archive(f"{VOC_URL}/voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", 1_999_639_040),
    ),
    "coco20k": coco_source(
        "train2014",
        82_783,
        Archive(f"{COCO_URL}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88", 13_510_573_713),
        Archive(
            f"{COCO_URL}/annotations/annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd", 252_872_794
        ),
    ),
    "coco": coco_source(
        "val2017",
        5_000,
        Archive(f"{COCO_URL}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330),
        Archive(
            f"{COCO_URL}/annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c", 252_907_541
        ),
    ),
    "davis": Source(
        (
            Part(
                (
                    Archive(
                        f"{DAVIS_URL}/DAVIS-2017-trainval-480p.zip",
                        "e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
                        832_766_765,
                    ),
                ),
                "DAVIS",
                ("davis/DAVIS", "DAVIS"),
                (("JPEGImages/480p", 6_208), ("Annotations/480p", 6_208)),
            ),
        ),
        "https://davischallenge.org/davis2017/code.html",
        "no licence stated; for research, with citation",
        "DAVIS 2017 at 480p: 60 videos of train, 30 of val",
    ),
    "uvo": Source(
        # the number of frames of val in the kit's README; the JSON of val is one of the files of FrameSet
        (Part((), "", ("uvo/UVOv1.0", "uvo"), (("FrameSet", 1), ("uvo_videos_sparse_frames", 7_356))),),
        "https://sites.google.com/view/unidentified-video-object/dataset",
        "see its page; videos from Kinetics-400",
        "UVO 1.0, FrameSet (UVO-Sparse)",
        "from its page, put the folder UVOv1.0 (with FrameSet/UVO_frame_val.json) into uvo/ in the data folder, "
        "unpack uvo_videos_sparse.zip (13 GB) beside them and run there: python UVOv1.0/video2frames.py --video_dir "
        "uvo_videos_sparse --frames_dir UVOv1.0/uvo_videos_sparse_frames",
    ),
    "imagenet": Source(
        (Part((), "", ("imagenet",), (("val", 50_000),)),),
        "https://image-net.org/download-images",
        "for research, with an account",
        "ILSVRC 2012, validation images",
        "from its page, unpack ILSVRC2012_img_val.tar and sort the images into val/<class>/ in imagenet/ in the data "
        "folder, as torchvision.datasets.ImageNet does",
    ),
}
