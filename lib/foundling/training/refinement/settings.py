"""What box-based refinement is told, checked before anything runs. Importing it imports no torch.

The defaults are for scenes on a laptop. "The paper's" are those of box_refinement (section 5), "the code's" those of
the configs that its authors published, which made the numbers of Table 4 as far as one can tell; studies/training has
both, as refine_…_paper.yaml and refine_…_code.yaml.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundling.training.settings import OnDataset, Option, Steps

Moved = Literal["h", "f"]
Phase = Annotated[dict[Moved, Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=1)]
PHASES: list[dict[Moved, int]] = [{"h": 150}, {"f": 100}]
SMALL: dict[str, Option] = {"channels": [32, 64, 128, 256]}


class Refinement(Steps):
    """A detector h on the map of a network f, then f through the frozen h (section 4.1)."""

    objective: Literal["refinement"] = Field("refinement", description="refinement")
    method: Literal["lost", "tokencut", "segmenter"] = Field(
        "lost",
        description="what finds the box of an image through f: lost, tokencut, or segmenter, a head on f whose mask "
        "is f's output (MOVE)",
    )
    discovery: dict[str, Any] = Field(
        {},
        description="settings of lost or tokencut in place of the paper's, as in foundling.discovery: {k: 1}",
    )
    backbone: str = Field(
        "scenes_odin",
        min_length=1,
        description="f: a name in foundling.backbones.BACKBONES of a ViT with a CLS token; of segmenter, the ViT below "
        "its head; the paper's: dino_vits16",
    )
    weights: str = Field(
        "pretrained",
        min_length=1,
        description="of f: pretrained, random or the path of a file; of segmenter, the path of its file",
    )
    fresh: bool = Field(
        False,
        description="segmenter only: the head that is refined starts from random numbers, beside a frozen one as it "
        "was; the code's: yes",
    )
    targets: Literal["refined", "frozen"] = Field(
        "refined",
        description="whose boxes teach, and whose map h is trained on: f as it is by now, or as it was; the code's: "
        "refined, of segmenter frozen",
    )
    layout: Literal["products", "grid"] = Field(
        "products",
        description="how h sees a ViT: queries, keys and values as the three channels of an image of patches by "
        "numbers, or as all channels of the patch grid; the code's: products",
    )

    boxes: int = Field(10, ge=1, le=1000, description="k, boxes that h predicts; the paper's: 10")
    network: str = Field(
        "resnet18",
        pattern=r"^[A-Za-z0-9_.]+$",
        description="timm's name of h; the paper's: resnet50",
    )
    network_options: dict[str, Option] = Field(SMALL, description="keyword arguments of that network")
    network_weights: str = Field(
        "random",
        min_length=1,
        description="what h starts from: random, a name in foundling.backbones.BACKBONES, or the path of a file that "
        "`foundling train` wrote; the paper's: dino_resnet50",
    )

    class_weight: float = Field(0.1, ge=0, description="lambda 1 of Eq. 6; the paper's: 2, the code's: 0.1")
    l1_weight: float = Field(5.0, ge=0, description="lambda 2 of Eq. 6; the paper's: 5")
    giou_weight: float = Field(2.0, ge=0, description="lambda 3 of Eq. 6; the paper's: 2")
    no_object: float = Field(
        0.1, gt=0, le=1, description="weight of a box without an object in the class loss; the code's: 0.1"
    )
    regulariser: float = Field(
        1.0,
        ge=0,
        description="weight of L_f (Eq. 17), here the mean square over the numbers of f's output, for a ViT its CLS "
        "token; 0: none; the code's: 1, the paper's sum over 384: 384",
    )
    mask_weight: float = Field(
        0.0, ge=0, description="segmenter only: weight of the mean of the mask in phase f; the code's: 0"
    )

    phases: list[Phase] = Field(
        PHASES,
        min_length=1,
        description="what is trained, h or f, and for how many steps, one after the other: [{h: 3000}, {f: 10000}] is "
        "the paper's",
    )
    steps: int = Field(250, ge=1, description="number of steps: the sum over phases, which may be left out")
    batch: int = Field(16, ge=1, description="images a step; the paper's: 36, the code's: 16")
    optimiser: Literal["adam", "adamw"] = Field(  # type: ignore[assignment]
        "adam",
        description="adam, whose decay goes through the moments, or adamw; the paper's: adam, of the code's segmenter "
        "adamw",
    )
    learning_rate: float = Field(1e-3, gt=0, description="of h; the paper's: 1e-5")
    refine_rate: float = Field(1e-5, gt=0, description="learning rate of f; the paper's: 5e-7, the code's: 1e-5")
    refine_power: float = Field(
        0.0,
        ge=0,
        description="f's rate falls to 0 with this power of the share of phase f that is left; 0: it stays; of the "
        "code's segmenter: 2",
    )
    warmup: int = Field(0, ge=0, le=0, description="there is none: 0")
    weight_decay: float = Field(1e-4, ge=0, description="of everything that is trained; the paper's: 1e-4")
    beta2: float = Field(0.999, ge=0, lt=1, description="second decay of h's moments; the code's: 0.999")
    refine_beta2: float = Field(0.999, ge=0, lt=1, description="of f's; the code's: 0.999, of segmenter 0.95")
    clip: float = Field(0.0, ge=0, description="largest norm of the gradient, 0: any; the paper's: 0")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the networks; losses are in fp32")

    side: int = Field(
        96, ge=16, le=2048, description="side of the square that a training image is resized to; the paper's: 304"
    )
    min_area: float = Field(
        0.9, gt=0, le=1, description="smallest share of an image that its random crop takes; the code's: 0.9"
    )
    max_area: float = Field(1.0, gt=0, le=1, description="largest share; the code's: 1")
    held_out: int = Field(
        64,
        ge=0,
        description="images, evenly spread, that are not trained on but looked at: how well h and the boxes found "
        "agree, how far f has moved; 0: none; the paper's: 0",
    )
    look_every: int = Field(50, ge=1, description="steps between two such looks")

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, values: Any) -> Any:
        """The steps of the phases, where they are not given."""
        if isinstance(values, dict) and "phases" in values and "steps" not in values:
            try:
                return {**values, "steps": sum(int(n) for phase in values["phases"] for n in phase.values())}
            except (TypeError, ValueError, AttributeError):  # which is told where phases are checked
                return values
        return values

    @model_validator(mode="after")
    def _phased(self) -> "Refinement":
        if self.steps != (total := sum(steps for _, steps in self.each_phase())):
            raise ValueError(f"steps = {self.steps}, but phases = {self.phases} have {total}: leave steps out")
        return self

    @model_validator(mode="after")
    def _fitting(self) -> "Refinement":
        if self.min_area > self.max_area:
            raise ValueError(f"min_area = {self.min_area} must be at most max_area = {self.max_area}")
        if self.method != "segmenter":
            if self.fresh or self.mask_weight:
                raise ValueError(f"fresh and mask_weight are for method segmenter, not {self.method}")
        elif self.discovery:
            raise ValueError(f"discovery = {self.discovery} is for methods lost and tokencut: leave it out")
        if not self.l1_weight + self.giou_weight:
            raise ValueError("l1_weight and giou_weight are both 0: nothing would say where a box is; give one of them")
        return self

    def each_phase(self) -> Iterator[tuple[Moved, int]]:
        """What is trained in each phase, and for how many steps."""
        return ((moved, steps) for phase in self.phases for moved, steps in phase.items())

    def moved(self, step: int) -> Moved:
        """What step number ``step``, from 0, trains; after the last, what that did."""
        end = 0
        for name, steps in self.each_phase():
            end += steps
            if step < end:
                return name
        return name

    def refined_steps(self, step: int) -> int:
        """How many of the first ``step`` steps train f."""
        done, start = 0, 0
        for name, steps in self.each_phase():
            if name == "f":
                done += min(max(step - start, 0), steps)
            start += steps
        return done


class RefinementOnDataset(Refinement, OnDataset):
    """The same, and the images: what `foundling train` takes."""

    images: int = Field(400, ge=0, description="number of images, from the first; 0: all")
