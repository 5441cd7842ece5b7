import pytest

from datamodules.names import by_name, nearest

RULES = {"itis": 1, "ritm": 2, "iog": 3}


def test_a_known_name_gives_what_it_stands_for():
    assert by_name("ritm", RULES, "click rule") == 2


def test_a_misspelt_name_is_refused_with_the_nearest_and_a_strange_one_with_all():
    with pytest.raises(ValueError, match=r"^no click rule 'rittm'; did you mean 'ritm'\?$"):
        by_name("rittm", RULES, "click rule")
    with pytest.raises(ValueError, match=r"^no click rule 'xyz'; there are: itis, ritm, iog$"):
        by_name("xyz", RULES, "click rule")


def test_the_nearest_names_come_first():
    assert nearest("pascal/vla", ["davis345", "pascal/train", "pascal/val"], most=2) == ["pascal/val", "pascal/train"]
    assert nearest("xyz", RULES) == []
