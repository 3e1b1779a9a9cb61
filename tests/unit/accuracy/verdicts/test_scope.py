"""What a scope keeps of its samples."""

from tests.unit.accuracy.healthy import KEY

from ppd_accuracy.verdicts.scope import Judged, Scope

OTHER = KEY._replace(model="other")


def judged(category, key=KEY):
    return Judged(key, category, "exact", 300, True)


def test_what_leaves_the_window_is_counted_no_more():
    scope = Scope("all")
    for category in ("far", "near", *["within"] * 998):
        scope.append(judged(category))
    assert (scope.beyond, scope.rejected, scope.keys[KEY]) == (2, 1, 1000)
    scope.append(judged("within", OTHER))
    assert (scope.beyond, scope.rejected, scope.keys[KEY], scope.keys[OTHER]) == (1, 0, 999, 1)


def test_the_worst_key_has_most_of_what_is_beyond():
    scope = Scope("all")
    assert scope.worst_key is None
    for category, key in (("within", KEY), ("within", KEY), ("near", OTHER)):
        scope.append(judged(category, key))
    assert scope.worst_key == OTHER


def test_an_identity_is_known_until_the_next_restart():
    scope = Scope("all")
    assert [scope.is_known(each) for each in (b"1", b"2", b"1")] == [False, False, True]
    scope.restart(is_red=True)
    assert not scope.is_known(b"1")


def test_of_very_many_identities_the_one_not_seen_for_longest_is_forgotten():
    scope = Scope("all")
    for number in (*range(5000), 0, 5000):
        scope.is_known(b"%d" % number)
    assert scope.is_known(b"0")
    assert not scope.is_known(b"1")
