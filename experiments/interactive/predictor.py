"""Masks for people who only want masks: a finished run with its pre-processing, and one object's session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules import geometry
from datamodules.batch import Batch, Sample, collate
from datamodules.clicks.points import CORRECTIVE_KINDS, PointKind
from datamodules.recipe import SampleRecipe
from datamodules.rendering import evaluation_views
from experiments.composition.building import sample_recipe
from experiments.composition.tree import Tree
from experiments.evaluation.pasting import Paste
from experiments.evaluation.settings import ClickSettings, MaskSettings, read_settings
from experiments.interactive.first_clicks import Opening, within
from experiments.runs.models import finished_training, load_model
from lightning_modules.interactive import Interactive, NotFinite, finite


class Predictor:
    """A method with the pre-processing and the threshold of its run.

    Args:
        model: any method of the suite, in eval mode.
        recipe: what it wants to see of an object, and what its user gives before the first mask.
        threshold: of the probability. stretch, paste: as in the run's evaluation; the latter is how crops, and whole
            images that were made smaller, get their size back.
        box: outside of which box an object is dropped, see `pasting.box_kept`; to DEXTR it is that of the points.
        corrections: how many clicks may follow the first points, None for any number.
    """

    def __init__(
        self,
        model: Interactive,
        recipe: SampleRecipe,
        threshold: float,
        stretch: bool = False,
        paste: str = "cubic",
        box: str = "tight",
        corrections: int | None = None,
    ) -> None:
        self.model, self.recipe, self.run = model, recipe, ""
        self.threshold, self.stretch = threshold, stretch
        self.paste, self.box = paste, box
        self.corrections = corrections
        self.opening = Opening.of(recipe)

    @property
    def begins_without_points(self) -> bool:
        """Whether the method takes clicks of both signs from the beginning, as in its evaluation."""
        return not self.opening.asked

    @property
    def takes_masks(self) -> bool:
        """Whether the network sees the last mask, so that it can start from one."""
        return getattr(self.model, "mask_channel", None) is not None

    @classmethod
    def from_run(cls, reference: str | Path) -> Predictor:
        """From a run's folder or the beginning of its hash. Raises ValueError when it is not a finished training."""
        training = finished_training(str(reference))
        predictor = cls.of(load_model(training), training.config)  # type: ignore[arg-type]
        predictor.run = training.hash
        return predictor

    @classmethod
    def of(cls, model: Interactive, config: Tree) -> Predictor:
        """A model with what a composed tree says of its samples and its evaluation."""
        masks = read_settings(MaskSettings, config["evaluation"])
        corrected = "clicks" in config["evaluation"]
        corrections = read_settings(ClickSettings, config["evaluation"]).clicks.corrections if corrected else 0
        return cls(
            model,
            sample_recipe(config),
            threshold=masks.threshold,
            stretch=masks.stretch,
            paste=masks.paste,
            box=masks.box,
            corrections=corrections,
        )

    def session(
        self,
        image: NDArray[np.uint8],
        start: NDArray | None = None,
        *,
        points: ArrayLike = (),
        inside: ArrayLike = (),
        box: ArrayLike = (),
    ) -> Session:
        """One object of an RGB image: its first mask, and then whatever clicks correct it.

        Args:
            start: (H, W), a mask to begin with, object where > 0; for a network that sees the last mask.
            points: extreme points (x, y) in any order, of a method that begins with them.
            inside: (x, y), IOG's inside point.
            box: (x, y, x, y), two opposite corners of a box somewhat larger than the object, for IOG. It is taken as it
                is: its four corners are the outside points, and the crop is the box with the recipe's `relax` around
                it. In training the corners lie `relax` of `InsideOutside` beyond the object's own box.

        Raises ValueError for what the method does not take or misses.
        """
        full = (int(image.shape[0]), int(image.shape[1]))
        first_clicks = self.opening(full, points=points, inside=inside, box=box)
        if self.begins_without_points and not self.recipe.evaluation_view.whole:
            raise ValueError("clicks need a run that is evaluated on whole images, as data.sample.test_view says")
        if start is not None and not self.takes_masks:
            raise ValueError("this run's network has no mask channel, so it cannot start from a mask; leave out --mask")
        if start is not None and start.shape != full:
            raise ValueError(f"the start mask needs the image's size {full}, got {start.shape}")
        nothing = np.zeros(full, np.uint8)
        views = evaluation_views(image, nothing, nothing, self.recipe, first_clicks.box)
        sample = Sample(
            image=views.image,
            mask=views.mask,
            void=views.void,
            points=first_clicks.on_grid(views),
            point_kinds=np.array(first_clicks.kinds, np.int64),
            to_crop=views.to_crop,
            crop_box=views.crop_box,
            box=first_clicks.box,
            image_size=full,
            object_id=0,
        )
        return Session(self, collate([sample]), first_clicks.xy, start)

    def __call__(self, image: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.bool_]:
        """The mask (H, W) of the object with these extreme points (x, y), in any order, in an RGB image."""
        return self.session(image, points=points).mask

    def probability(self, image: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.float32]:
        """The same before the threshold: (H, W) in about [0, 1], 0 where the method's predictions are dropped."""
        return self.session(image, points=points).probability


class Session:
    """One object of one image, clicked until its mask is right; what the network knows of the image is kept.

    The network sees what it sees in the run's evaluation: a crop around the box of the first points, or the whole image
    within the recipe's `long_side`; and a mask is what the click benchmark would see. `Predictor.session` makes one.

    Args:
        batch: one object with its first points, as an evaluation's loader gives it.
        first_clicks: (K, 2), these points in pixels of the image.
        start: (H, W), the mask to begin with.
    """

    def __init__(self, predictor: Predictor, batch: Batch, first_clicks: NDArray, start: NDArray | None = None) -> None:
        self.batch, self._model, self._run = batch, predictor.model, predictor.run
        self._points, self._state, self._left = batch.clicks, None, predictor.corrections
        self._full = (int(batch.image_size[0, 0]), int(batch.image_size[0, 1]))
        self._paste = Paste(predictor.threshold, predictor.paste, predictor.stretch, predictor.box)
        self._previous: Tensor | None = None
        self._logits: Tensor | None = None
        self.mask: NDArray[np.bool_] = np.zeros(self._full, bool)
        if start is not None:
            self.mask = start > 0
            grid = batch.to_crop[0].numpy()
            previous = geometry.warp(self.mask.astype(np.uint8), grid, batch.size, "nearest")
            self._previous = torch.from_numpy(previous)[None, None].float()
        self.points: list[tuple[float, float]] = [(x, y) for x, y in first_clicks.tolist()]
        self.kinds = [PointKind(int(kind)) for kind in batch.point_kinds[0]]
        if self.kinds:
            self._look()

    @property
    def probability(self) -> NDArray[np.float32]:
        """(H, W) in about [0, 1]: what the threshold makes the mask from; zeros before the first click."""
        whole = np.zeros(self._full, np.float32)
        if self._logits is not None:
            crop = torch.sigmoid(self._logits.float())[0, 0].numpy()
            window, pasted = self._paste.pasted(crop, self.batch, 0)
            whole[window] = pasted
        return whole

    def click(self, x: float, y: float, positive: bool = True) -> NDArray[np.bool_]:
        """The mask (H, W) after one more click in pixels of the image; positive means "this is object"."""
        return self.click_all([(x, y)] if positive else [], [] if positive else [(x, y)])

    def click_all(self, positive: ArrayLike, negative: ArrayLike = ()) -> NDArray[np.bool_]:
        """The mask (H, W) after several more clicks, (K, 2) each, and a single look of the network.

        Raises ValueError, and stays as it was, without any click, for one outside the image, and for more of them than
        the run's evaluation makes.
        """
        xy = [np.asarray(clicks, np.float64).reshape(-1, 2) for clicks in (positive, negative)]
        kinds = [kind for clicks, kind in zip(xy, CORRECTIVE_KINDS) for _ in clicks]
        clicked = within(np.concatenate(xy), self._full)
        if not kinds:
            raise ValueError("expected at least one click, got none; give --positive x,y")
        if self._left is not None and len(kinds) > self._left:
            most = f"at most {self._left} more" if self._left else "no further"
            raise ValueError(
                f"this run's evaluation makes {most} clicks (corrections), got {len(kinds)}; leave them out"
            )
        last = np.array(self.batch.size[::-1]) - 1.0
        on_grid = geometry.apply(self.batch.to_crop[0].numpy(), clicked)
        at_rim = (on_grid >= -0.5) & (on_grid <= last + 0.5)  # the outer half of a shrunken image's outermost pixel
        on_grid = np.where(at_rim, on_grid.clip(0, last), on_grid)  # belongs to that pixel, as in the benchmark
        self._points = self._points.with_more(torch.from_numpy(on_grid)[None], torch.tensor([kinds]))
        self._left = None if self._left is None else self._left - len(kinds)
        self.points, self.kinds = [*self.points, *map(tuple, clicked.tolist())], [*self.kinds, *kinds]
        return self._look()

    def _look(self) -> NDArray[np.bool_]:
        """The mask after all clicks so far. Raises ValueError where the network answers no number."""
        with torch.inference_mode():
            if self._state is None:
                self._state = self._model.start(self.batch.image, self._points)
            logits, self._state = self._model.predict(self._state, self._points, self._previous)
        try:
            above = finite(logits) > self._paste.logit
        except NotFinite as error:
            clicks = " ".join(f"{x:g},{y:g}" for x, y in self.points)
            raise ValueError(
                f"run {self._run or 'of this model'}, the object clicked at {clicks}: {error}; {error.advice}"
            ) from None
        self._previous, self._logits = above.float(), logits
        self.mask = self._paste.masks(logits, above, self.batch, [self._full])[0] > 0
        return self.mask
