"""Whole images with their instances: which images, which objects, the same on any machine."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pytorch_lightning import LightningModule, Trainer

from datamodules.image_data import ImageData, image_evaluation_loader
from datamodules.image_index import category_names, evaluation_images, image_keys, repeat_factors, training_images
from datamodules.image_samples import ImageSamples
from datamodules.index import concatenate
from datamodules.instances import ImageBatch, collate_images
from datamodules.mask_runs import drawn_masks, read_runs
from datamodules.resizing import LargeScaleJitter, ShortSide
from datamodules.selection import open_objects
from tests.datamodules.layouts import SIZE, coco_annotation, rectangle, write_coco

NAME = "coco2017/train"
SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]


@pytest.fixture(autouse=True)
def cached_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.delenv("COCO_ROOT", raising=False)


def annotation(number: int, image: int, box=(2, 2, 6, 6), **fields):
    """A filled rectangle, x, y, width, height, as a polygon."""
    x, y, width, height = box
    ring = [x, y, x + width, y, x + width, y + height, x, y + height]
    values = {"bbox": list(box), "area": width * height, **fields}
    return coco_annotation(number, image, [ring], **values)


@pytest.fixture
def root(tmp_path):
    """Four images: two cats on the first, a toothbrush on the second, a crowd on the third, nothing on the fourth."""
    crowd = {"size": list(SIZE), "counts": [20, 30, SIZE[0] * SIZE[1] - 50]}
    annotations = [
        annotation(0, 1, (2, 2, 6, 6)),  # annotation id 0 is an object like any other
        annotation(5, 1, (9, 1, 4, 9)),
        annotation(7, 2, (1, 3, 5, 5), category_id=90),
        coco_annotation(9, 3, crowd, iscrowd=1),
    ]
    write_coco(tmp_path / "coco", annotations, split="train2017", images=(1, 2, 3, 4))
    return tmp_path


def picture(path, seed: int, size=SIZE) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def many(tmp_path):
    """Eleven images of different looks with one to three objects each."""
    draw = np.random.default_rng(3)
    annotations = []
    for image in range(1, 12):
        for _ in range(1 + image % 3):
            x, y = int(draw.integers(0, 8)), int(draw.integers(0, 6))
            category = 90 if image % 4 == 0 else 7
            annotations.append(annotation(len(annotations) + 1, image, (x, y, 6, 5), category_id=category))
    write_coco(tmp_path / "coco", annotations, split="train2017", images=range(1, 12))
    for image in range(1, 12):
        picture(tmp_path / "coco" / "train2017" / f"{image:012d}.jpg", image)
    return tmp_path


def label_file(root, masks: dict[int, np.ndarray], name: str = "labels.json"):
    """Of the objects by their place in the index: annotations keep their boxes, whatever the mask."""
    index = open_objects([NAME], root)
    entries = []
    for place, mask in masks.items():
        encoded = coco_mask.encode(np.asfortranarray(mask))
        entries.append(
            {
                "id": place + 1,
                "image_id": 1,
                "category_id": 7,
                "object_id": int(index.object_id[place]),
                "segmentation": {"size": list(mask.shape), "counts": encoded["counts"].decode()},
                "area": int(mask.sum()),
                "bbox": [0, 0, 1, 1],
            }
        )
    (root / "run").mkdir(exist_ok=True)
    file = root / "run" / name
    file.write_text(json.dumps({"images": [], "categories": [], "annotations": entries}))
    return str(file)


def test_training_sees_the_images_with_objects_and_evaluation_all(root):
    assert [training_images([NAME], root).path(k).stem[-1] for k in range(2)] == ["1", "2"]
    assert len(training_images([NAME], root)) == 2
    whole = evaluation_images([NAME], root)
    assert [whole.path(k).stem[-1] for k in range(len(whole))] == ["1", "2", "3", "4"]
    assert whole.bounds.tolist() == [[0, 2], [2, 3], [3, 3], [3, 3]]


def test_a_selection_leaves_evaluation_the_images_that_still_have_an_object(root):
    cats = evaluation_images([{"name": NAME, "categories": ["cat"]}], root)
    assert cats.rows.tolist() == [0]
    both = evaluation_images([{"name": NAME, "half": 1}, {"name": NAME, "half": 2}][:1], root)
    assert len(both) == 1


def test_category_ids_with_gaps_become_places_from_0(root):
    images = training_images([NAME], root)
    labels = [batch.labels[0].tolist() for batch in map(batch_of, [images] * 2, range(2))]
    assert category_names([NAME], root) == ("cat", "toothbrush")
    assert labels == [[0, 0], [1]]


def batch_of(images, position, resize=None, **options) -> ImageBatch:
    samples = ImageSamples(images, resize or ShortSide([SIZE[0]]), train=True, **options)
    return collate_images([samples[0, position, 0]], multiple=8)


def test_a_batch_holds_masks_boxes_and_padding_where_they_belong(root):
    batch = batch_of(training_images([NAME], root), 0, ShortSide([24], fill=5))
    assert batch.image.shape == (1, 3, 24, 32)
    assert batch.size.tolist() == [[24, 32]]
    assert batch.original_size.tolist() == [list(SIZE)]
    assert batch.boxes[0].tolist() == [[4, 4, 16, 16], [18, 2, 26, 20]]
    expected = cv2.resize(rectangle(2, 2, 7, 7), (32, 24), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(batch.masks[0][0], expected)
    padded = batch_of(training_images([NAME], root), 0, ShortSide([20], fill=5))
    assert padded.image.shape == (1, 3, 24, 32)
    assert padded.size.tolist() == [[20, 27]]
    assert (padded.image[0, :, 20:] == 5).all()
    assert (padded.image[0, :, :, 27:] == 5).all()
    assert (padded.image[0, :, :20, :27] != 5).all()
    assert not padded.masks[0][:, 20:].any()


def test_images_of_different_sizes_share_the_smallest_grid(root):
    samples = ImageSamples(training_images([NAME], root), ShortSide([24]), train=True)
    small = ImageSamples(training_images([NAME], root), ShortSide([10]), train=True)
    batch = collate_images([small[0, 0, 0], samples[0, 1, 0]], multiple=8)
    assert batch.image.shape[-2:] == (24, 32)
    assert batch.size.tolist() == [[10, 13], [24, 32]]
    assert [mask.shape for mask in batch.masks] == [(2, 24, 32), (1, 24, 32)]


def test_a_batch_on_its_device_is_laid_out_plane_by_plane(root):
    batch = batch_of(training_images([NAME], root), 0)
    moved = batch.to("cpu")
    assert moved.image.is_contiguous()
    assert torch.equal(moved.image, batch.image)
    assert len(moved) == 1


def test_objects_that_jitter_cuts_off_are_left_out_with_their_boxes_and_labels(root):
    images = training_images([NAME], root)
    samples = ImageSamples(images, LargeScaleJitter(16, [2.0, 2.0]), train=True, flip=0.5)
    counts = set()
    for epoch in range(40):
        batch = collate_images([samples[epoch, 0, 0]], multiple=8)
        counts.add(len(batch.masks[0]))
        assert len(batch.masks[0]) == len(batch.boxes[0]) == len(batch.labels[0])
        assert batch.masks[0].flatten(1).any(dim=1).all()
        assert (batch.boxes[0][:, 2:] > batch.boxes[0][:, :2]).all()
    assert counts >= {1, 2}


def test_methods_see_the_annotated_box_when_a_model_made_the_masks(root):
    small = rectangle(4, 4, 5, 5)
    file = label_file(root, {0: small, 2: small})
    images = training_images([{"name": NAME, "labelled": file}], root)
    batch = batch_of(images, 0)
    assert batch.boxes[0].tolist() == [[2, 2, 8, 8]]
    np.testing.assert_array_equal(batch.masks[0][0, : SIZE[0], : SIZE[1]], small)
    assert images.objects.box[0].tolist() == [4, 4, 5, 5]
    joined = training_images([{"name": NAME, "labelled": file}, {"name": NAME, "categories": "not_pascal"}][:1], root)
    assert joined.objects.annotated[0].tolist() == [2, 2, 7, 7]


def test_an_annotated_box_outlives_selection_and_concatenation(root):
    index = open_objects([{"name": NAME, "labelled": label_file(root, {0: rectangle(4, 4, 5, 5)})}], root)
    own = open_objects([{"name": "coco2017/train", "categories": ["toothbrush"]}], root)
    both = concatenate([index, own], "both")
    assert both.annotated.tolist() == [[2, 2, 7, 7], [1, 3, 5, 7]]
    assert both.select(np.array([1])).annotated.tolist() == [[1, 3, 5, 7]]
    unnamed = replace(index, annotated_box=np.zeros((0, 4), np.int32))
    assert index.fingerprint() == unnamed.fingerprint(), "runs on labels would have other names"


def test_an_empty_label_is_no_object_and_its_image_may_be_none(root):
    empty = np.zeros(SIZE, np.uint8)
    file = label_file(root, {0: empty, 1: rectangle(9, 1, 12, 9), 2: empty})
    images = training_images([{"name": NAME, "labelled": file}], root)
    assert len(images) == 1
    assert len(batch_of(images, 0).masks[0]) == 1
    index = open_objects([NAME], root)
    why = f"2 objects whose mask is empty or whose box is below one pixel, the first is {index.native_id[0]}"
    assert images.objects.left_out == ("1 crowd annotations", why)
    assert images.objects.num_left_out == 3
    nothing = label_file(root, {0: empty, 2: empty}, "empty.json")
    with pytest.raises(ValueError, match="has an object of a pixel or more; there is nothing to train on"):
        training_images([{"name": NAME, "labelled": nothing}], root)


def test_a_training_says_once_what_of_its_data_was_left_out(root, capsys):
    assert training_images([NAME], root).objects.left_out == ("1 crowd annotations",)
    data, _ = module(root)
    assert data.left_out == ("1 crowd annotations",)
    module(root, processes=2, rank=1)
    assert capsys.readouterr().err.count("training data, left out: 1 crowd annotations\n") == 1
    spec = {"name": NAME, "labelled": label_file(root, {0: np.zeros(SIZE, np.uint8), 1: rectangle(1, 1, 5, 5)})}
    few = (
        "1 object without a pseudo-label",
        "1 object whose mask is empty or whose box is below one pixel, the first is 0",
    )
    assert training_images([spec], root).objects.left_out[1:] == few


def test_a_file_of_crowds_alone_and_objects_without_category_are_refused(tmp_path):
    crowd = {"size": list(SIZE), "counts": [20, 30, SIZE[0] * SIZE[1] - 50]}
    write_coco(tmp_path / "coco", [coco_annotation(9, 1, crowd, iscrowd=1)], split="train2017")
    with pytest.raises(ValueError, match="all of its 1 annotations with masks are crowds"):
        training_images([NAME], tmp_path)
    write_coco(tmp_path / "other" / "coco", [annotation(3, 1)], split="train2017", categories=[])
    with pytest.raises(ValueError, match=r"1 of 1 objects of coco2017/train have no category, the first is 3 of .*jpg"):
        training_images([NAME], tmp_path / "other")


def digest(batches) -> str:
    found = hashlib.blake2b(digest_size=16)
    for batch in batches:
        for tensor in (batch.image, batch.size, batch.position, *batch.masks, *batch.boxes, *batch.labels):
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def module(root, workers=0, processes=1, rank=0, accumulated=1, epoch=0, **options) -> tuple[ImageData, object]:
    """The loader of one process, as Lightning would ask for it."""
    arguments = {"batch_size": 6, "seed": 4, "resize": ShortSide([10, 12, 14, 20]), **options}
    data = ImageData([NAME], test_resize=ShortSide([12]), workers=workers, root=str(root), multiple=8, **arguments)
    data.trainer = SimpleNamespace(world_size=processes, global_rank=rank, accumulate_grad_batches=accumulated)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return data, loader


def images_of(root, processes: int, **options) -> list[str]:
    """What is trained on in each global batch, image for image: each on its own grid, in the order of ranks."""
    ranks = []
    for rank in range(processes):
        _, loader = module(root, processes=processes, rank=rank, **options)
        ranks.append([loader.dataset[key] for key in loader.sampler])
    micro = 6 // processes
    steps = [samples[start : start + micro] for start in range(0, len(ranks[0]), micro) for samples in ranks]
    return [digest([collate_images([sample])]) for step in steps for sample in step]


@pytest.mark.parametrize("repeat", [None, 0.9])
def test_the_same_images_come_on_1_2_and_3_processes(many, repeat):
    alone = images_of(many, 1, repeat=repeat)
    assert images_of(many, 2, repeat=repeat) == images_of(many, 3, repeat=repeat) == alone
    assert images_of(many, 1, repeat=repeat, epoch=1) != alone
    assert images_of(many, 1, repeat=repeat, seed=5) != alone


def test_workers_change_nothing(many):
    assert digest(module(many, workers=2)[1]) == digest(module(many)[1])


def test_draws_hang_on_the_file_name_and_not_on_where_it_lies_or_stands(many, tmp_path):
    write_coco(tmp_path / "elsewhere" / "coco", [annotation(k, k) for k in (3, 4)], split="train2017", images=(3, 4))
    here, there = (training_images([NAME], place) for place in (many, tmp_path / "elsewhere"))
    assert here.keys[2:4].tolist() == there.keys.tolist()
    twice = training_images([{"name": NAME, "categories": ["cat"]}], many)
    assert set(twice.keys) <= set(image_keys(open_objects([NAME], many)).tolist())


def test_an_image_that_comes_again_in_an_epoch_looks_otherwise(many):
    samples = ImageSamples(training_images([NAME], many), LargeScaleJitter(16), train=True, flip=0.5)
    looks = {samples[0, 0, copy].place for copy in range(8)}
    assert len(looks) == 8
    assert samples[0, 0, 3].place == samples[0, 0, 3].place


def test_rare_categories_come_more_often(many):
    """Of 11 images 2 (4 and 8) have a toothbrush: with t = 0.5 these count sqrt(0.5 * 11 / 2) = 1.66, two when up."""
    factors = repeat_factors([NAME], 0.5, many)
    expected = [np.sqrt(0.5 * 11 / 2) if image in (4, 8) else 1.0 for image in range(1, 12)]
    np.testing.assert_allclose(factors, expected)
    _, loader = module(many, repeat=0.5)
    assert loader.sampler.size == 13
    seen = np.bincount([i for _, i, _ in module(many, repeat=0.5, batch_size=13)[1].sampler], minlength=11)
    assert seen.tolist() == [2 if image in (4, 8) else 1 for image in range(1, 12)]
    assert module(many, repeat=0)[1].sampler.size == 11


def test_frequencies_are_those_of_the_annotations_whatever_labels_found(many):
    index = open_objects([NAME], many)
    brush = int(np.flatnonzero(index.category == 1)[0])
    file = label_file(many, {0: rectangle(1, 1, 5, 5), brush: rectangle(1, 1, 5, 5)})
    spec = [{"name": NAME, "labelled": file}]
    np.testing.assert_array_equal(repeat_factors(spec, 0.5, many), repeat_factors([NAME], 0.5, many))


def test_a_broken_image_is_replaced_by_the_next_and_named_once(many):
    broken = many / "coco" / "train2017" / f"{3:012d}.jpg"
    images = training_images([NAME], many)
    broken.write_bytes(b"no image")
    samples = ImageSamples(images, ShortSide([12, 16]), train=True)
    with pytest.warns(UserWarning, match=f"{broken} cannot be decoded.*another image is seen in its place"):
        first = samples[0, 2, 0]
    assert first.position == 3
    assert digest([collate_images([first])]) == digest([collate_images([samples[0, 3, 0]])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples[1, 2, 0]
    tested = image_evaluation_loader(images, ShortSide([12]), batch_size=2, workers=0)
    with pytest.raises(ValueError, match=f"{broken} cannot be decoded"):
        list(tested)


def test_a_broken_mask_costs_its_image_and_an_epoch_goes_on(many):
    images = training_images(
        [{"name": NAME, "labelled": label_file(many, {0: rectangle(1, 1, 5, 5), 3: rectangle(2, 2, 5, 5)})}], many
    )
    assert len(images) == 2
    rle = np.array(images.objects.rle)
    rle[: images.objects.mask_range[0, 1]] = 200
    images = replace(images, objects=replace(images.objects, rle=rle))
    samples = ImageSamples(images, ShortSide([12]), train=True)
    with pytest.warns(UserWarning, match="mask of object 1 of coco2017/train: its run lengths do not fill"):
        assert [samples[0, k, 0].position for k in range(2)] == [1, 1]


def test_data_of_which_nothing_can_be_read_are_an_error(many):
    images = training_images([NAME], many)
    for image in (many / "coco" / "train2017").iterdir():
        image.write_bytes(b"")
    samples = ImageSamples(images, ShortSide([12]), train=True)
    with (
        pytest.warns(UserWarning, match="another image is seen"),
        pytest.raises(ValueError, match="11 images one after the other cannot be read"),
    ):
        samples[0, 0, 0]


def test_evaluation_goes_through_all_images_in_order_on_any_number_of_processes(root):
    images = evaluation_images([NAME], root)
    alone = list(image_evaluation_loader(images, ShortSide([24]), batch_size=2, workers=0))
    assert torch.cat([batch.position for batch in alone]).tolist() == [0, 1, 2, 3]
    assert all(len(part) == 0 for batch in alone for part in (*batch.masks, *batch.boxes, *batch.labels))
    dealt = [
        list(image_evaluation_loader(images, ShortSide([24]), batch_size=2, workers=0, rank=rank, processes=2))
        for rank in range(2)
    ]
    assert digest([dealt[0][0], dealt[1][0]]) == digest(alone)


def test_what_draws_is_refused_at_test(root):
    with pytest.raises(ValueError, match=r"LargeScaleJitter draws the size of an image.*set data.test_resize"):
        image_evaluation_loader(evaluation_images([NAME], root), LargeScaleJitter(), batch_size=1, workers=0)
    with pytest.raises(ValueError, match="ShortSide draws the size of an image"):
        image_evaluation_loader(evaluation_images([NAME], root), ShortSide([640, 800]), batch_size=1, workers=0)


def test_a_batch_that_does_not_split_is_refused_with_the_remedy(many):
    with pytest.raises(
        ValueError,
        match=r"size 6 does not split over 2 processes x 2 accumulated passes; their product can be 1, 2, 3, 6",
    ):
        module(many, processes=2, accumulated=2)


def test_training_goes_on_with_the_very_next_image(many):
    whole = list(module(many, batch_size=2, epoch=1)[1].sampler)
    data, _ = module(many, batch_size=2)
    data.load_state_dict({"consumed": 5 + 2})  # five steps an epoch, two of the second
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    assert list(loader.sampler) == whole[4:]


def test_what_shapes_a_training_and_an_evaluation_is_told_apart():
    arguments = {
        "train": [NAME],
        "val": None,
        "resize": {"class_path": "datamodules.resizing.ShortSide", "init_args": {"sides": [640, 800]}},
        "test_resize": {"class_path": "datamodules.resizing.ShortSide", "init_args": {}},
        "repeat": 0.001,
        "workers": 3,
        "root": "/data",
        "multiple": 32,
    }
    assert set(ImageData.shapes_training(arguments)) == {"train", "resize", "repeat", "multiple"}
    assert set(ImageData.shapes_evaluation(arguments)) == {"test_resize", "multiple"}
    said = {name: value for name, value, _ in ImageData.training_choices(arguments)}
    assert said["images at training"] == "shorter side 640 or 800 px, longer at most 1333 px"
    assert said["repeat-factor sampling"] == "threshold 0.001, rounded up"


def test_masks_are_those_that_the_index_reads(drawn, monkeypatch):
    """On drawn data: polygons, run lengths of holes, label maps."""
    monkeypatch.setenv("CACHE_ROOT", str(drawn))
    compared = 0
    for name in ("coco2017/val", "pascal/val"):
        images = evaluation_images([name], drawn / "miniature" / "0")
        for first, last in images.bounds[:12].tolist():
            if first == last:
                continue
            height, width = size = images.objects.size_of(first)
            everything = np.ones(last - first, bool)
            runs = read_runs(images.objects, range(first, last))
            _, masks = drawn_masks(runs, np.arange(height), np.arange(width), size, everything)
            np.testing.assert_array_equal(masks, [images.objects.read_mask(i).mask for i in range(first, last)])
            compared += last - first
    assert compared > 20


class Watching(LightningModule):
    """Notes which images come, and keeps the third step."""

    def __init__(self, kept) -> None:
        super().__init__()
        self.weight, self.seen, self.kept = torch.nn.Parameter(torch.zeros(1)), [], kept

    def training_step(self, batch: ImageBatch, batch_idx: int) -> torch.Tensor:
        assert batch.image.is_contiguous()
        self.seen.append(batch.position.tolist())
        return self.weight.sum()

    def on_train_batch_end(self, *_: object) -> None:
        if self.kept is not None and self.trainer.global_step == 3:
            self.trainer.save_checkpoint(self.kept)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(many, kept=None, start=None) -> list[list[int]]:
    """The images of six steps; `kept`: where a checkpoint of the third goes, `start`: one to go on from."""
    data = ImageData([NAME], ShortSide([10, 14]), ShortSide([12]), batch_size=4, workers=0, root=str(many), multiple=8)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_steps=6, enable_checkpointing=False, use_distributed_sampler=False, **quiet
    )
    model = Watching(kept)
    trainer.fit(model, datamodule=data, ckpt_path=start)
    return model.seen


def test_a_training_goes_on_from_a_checkpoint_with_what_it_would_have_seen(many):
    """11 images in batches of 4: two steps an epoch; the third is in the middle of the second."""
    whole = fitted(many, kept=many / "third.ckpt")
    assert fitted(many, start=many / "third.ckpt") == whole[3:]


def test_validation_shows_images_with_objects_as_at_test_and_what_is_true_of_them(root):
    data, _ = module(root, val=[NAME])
    batches = list(data.val_dataloader())
    assert [batch.position.tolist() for batch in batches] == [[0], [1]]  # of four images two have objects
    assert [len(batch.masks[0]) for batch in batches] == [2, 1]
    again = list(data.val_dataloader())
    assert all(torch.equal(a.image, b.image) and torch.equal(a.masks[0], b.masks[0]) for a, b in zip(batches, again))


def test_a_broken_image_of_the_validation_costs_no_training(many):
    (many / "coco" / "train2017" / f"{2:012d}.jpg").write_bytes(b"no image")
    data, _ = module(many, val=[NAME])
    with pytest.warns(UserWarning, match="another image is seen in its place"):
        batches = list(data.val_dataloader())
    assert len(batches) == 11
