import torch

from datamodules.clicks.points import Click, PointKind, Points


def test_further_clicks_stand_behind_the_others_and_become_like_them():
    points = Points(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[PointKind.LEFT]]), torch.ones(1, 2))
    more = points.with_more(torch.tensor([[[3, 4], [5, 6]]]), torch.tensor([[PointKind.POSITIVE, PointKind.PADDING]]))
    assert more.xy.tolist() == [[[1, 2], [3, 4], [5, 6]]]
    assert more.kinds.tolist() == [[PointKind.LEFT, PointKind.POSITIVE, PointKind.PADDING]]
    assert more.xy.dtype == points.xy.dtype
    assert more.since(1).xy.tolist() == [[[3, 4], [5, 6]]]
    assert points.xy.shape == (1, 1, 2)


def test_the_sign_of_a_click_is_its_kind():
    assert Click(3, 4, positive=True).kind == PointKind.POSITIVE
    assert Click(3, 4, positive=False).kind == PointKind.NEGATIVE
