import pytest

from datamodules.names import by_name, check_name, hint

RULES = {"itis": 1, "ritm": 2, "iog": 3}


def test_a_known_name_gives_what_it_stands_for():
    assert by_name("ritm", RULES, "no click rule") == 2


def test_a_misspelt_name_is_refused_with_the_nearest_and_a_strange_one_with_all():
    with pytest.raises(ValueError, match=r"^no click rule 'rittm'; did you mean 'ritm'\?$"):
        by_name("rittm", RULES, "no click rule")
    with pytest.raises(ValueError, match=r"^no click rule 'xyz'; there are: itis, ritm, iog$"):
        by_name("xyz", RULES, "no click rule")


def test_the_nearest_names_come_first_as_they_are_typed():
    known = ["davis345", "pascal/train", "pascal/val"]
    assert hint("pascal/vla", known, most=2) == "did you mean 'pascal/val' or 'pascal/train'?"
    assert hint("vla", ["val"], before="data.") == "did you mean 'data.val'?"
    assert hint("xyz", RULES, before="rule ") == "there are: rule itis, rule ritm, rule iog"
    assert hint("xyz", RULES, otherwise="see the list") == "see the list"
    assert hint("xyz", []) == "there is none"


def test_a_name_that_is_no_text_is_refused_in_the_same_words():
    with pytest.raises(ValueError, match=r"^no key 3; there are: itis, ritm, iog$"):
        check_name(3, RULES, "no key")
