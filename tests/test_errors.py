from vtzoo.errors import VtzooError, unknown


def test_an_unknown_name_brings_the_nearest_and_the_next_command() -> None:
    error = unknown("model", "swin_s", ["swin_t", "cvt_13"], "vtzoo list names them")
    assert isinstance(error, VtzooError)
    assert error.message == "unknown model 'swin_s'"
    assert error.hint == "did you mean swin_t? vtzoo list names them"


def test_a_name_near_to_nothing_lists_the_few_that_exist() -> None:
    assert unknown("backend", "zzz", ["torch", "onnx"]).hint == "known: onnx, torch"


def test_a_name_near_to_nothing_among_many_brings_the_command_alone() -> None:
    assert unknown("class", "zzz", [f"name{i}" for i in range(50)], "see there").hint == "see there"
    assert unknown("class", "zzz", [f"name{i}" for i in range(50)]).hint is None
