"""Files of tests: what is wrong with one, and one without some of its tests."""

import pytest

from expertmesh.assistants.testing.tests_text import fault_of, shown_source, without

TESTS = """\
import pytest
from m import f


# A comment that stays.
@pytest.mark.parametrize("x", [1, 2])
def test_wrong(x):
    assert f(x) == 3


def test_right():
    assert f(1) == 1


class TestF:
    def test_a(self):
        assert f(2) == 1

    def test_b(self):
        assert f(2) == 2


class TestG:
    def test_c(self):
        assert 0
"""


def test_what_holds_tests_is_a_file_of_tests() -> None:
    assert fault_of(TESTS) == ""
    assert fault_of("class TestA:\n    def test_a(self): ...") == ""
    assert "no function" in fault_of("x = 1")
    assert "no function" in fault_of("class A:\n    def test_a(self): ...")
    assert "no Python" in fault_of("I cannot write tests.")
    assert "no Python" in fault_of("x = '\0'")


def test_tests_are_taken_out_and_the_rest_stays_as_it_was() -> None:
    left = without(TESTS, {"test_wrong", "TestF::test_a", "TestG::test_c"})
    assert left == (
        "import pytest\nfrom m import f\n\n\n# A comment that stays.\n\n\n"
        "def test_right():\n    assert f(1) == 1\n\n\n"
        "class TestF:\n\n    def test_b(self):\n        assert f(2) == 2\n\n\n"
    )
    assert fault_of(left) == ""
    assert without(TESTS, ()) == TESTS


@pytest.mark.parametrize("function", ["f", "A.g"])
def test_of_a_long_module_the_function_and_what_it_uses_is_shown(function: str) -> None:
    filler = "".join(f"def other{n}():\n    return {n}\n\n\n" for n in range(1000))
    source = f"import os\nLIMIT = 3\n\n\n{filler}def f():\n    return LIMIT\n\n\n"
    source += "class A:\n    def g(self):\n        return os.name\n"
    shown = shown_source(source, function)
    assert shown.startswith("import os\nLIMIT = 3\n")
    assert ("return LIMIT" in shown) == (function == "f")
    assert ("class A:" in shown and "def g(self)" in shown) == (function == "A.g")
    assert "other1" not in shown
    assert shown_source("x = 1\n", "f") == "x = 1\n"
