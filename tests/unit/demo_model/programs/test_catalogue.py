"""The toy functions and their wrong lines: told apart by running them, and held out apart."""

import random

import pytest

from demo_model.programs import catalogue, naming, project, running, templates, values
from demo_model.programs.catalogue import Pair
from demo_model.programs.mutations import KINDS
from demo_model.programs.templates import Template, fill


@pytest.mark.parametrize("template", templates.load(), ids=lambda template: template.name)
def test_a_template_runs_on_all_its_arguments(template: Template) -> None:
    names = catalogue.default_names(template)
    function = running.define(fill("\n".join(template.lines), names), "m.py")[names["f"]]
    rng = random.Random(template.name)
    good = 0
    for _ in range(40):
        _, raised = running.call(function, values.draw(rng, template.arguments))
        good += raised is None
    assert good == 40
    assert len(set(template.functions)) == 4
    assert set(template.slots) <= set(templates.POOLS)


def test_every_pair_is_wrong_for_some_arguments() -> None:
    for pair in catalogue.pairs():
        assert pair.breaks or _differs(pair), (pair.template.name, pair.mutation)


def _differs(pair: Pair) -> bool:
    names = catalogue.default_names(pair.template)
    right = running.define(fill("\n".join(pair.template.lines), names), "m.py")[names["f"]]
    wrong = running.define(fill("\n".join(pair.lines), names), "m.py")[names["f"]]
    rng = random.Random("another seed")
    for _ in range(300):
        arguments = values.draw(rng, pair.template.arguments)
        expected, _ = running.call(right, arguments)
        got, raised = running.call(wrong, arguments)
        if raised or not catalogue.accepts(expected, got):
            return True
    return False


def test_the_three_pools_have_nothing_in_common() -> None:
    trained = set(catalogue.trained().pairs)
    held_out = set(catalogue.held_out_pairs().pairs)
    others = set(catalogue.pairs_of_held_out_templates().pairs)
    assert not trained & held_out
    assert not {pair.template for pair in trained | held_out} & {pair.template for pair in others}
    assert trained | held_out | others == set(catalogue.pairs())
    assert len(held_out) >= 80
    assert len(templates.held_out()) >= 10
    assert {pair.mutation.kind for pair in trained} == set(KINDS)


def test_trained_names_are_never_held_out_ones() -> None:
    rng = random.Random(0)
    for _ in range(300):
        template = rng.choice(templates.trained())
        names = naming.names_for(rng, template, held_out=False, taken=set())
        pools = {"f": template.functions, **templates.POOLS}
        for slot, name in names.items():
            if any(not naming.is_held_out(other) for other in pools[slot]):
                assert not naming.is_held_out(name)
        assert len(set(names.values())) == len(names)


def test_an_endless_call_is_ended() -> None:
    function = running.define("def f(n):\n    while n > 0:\n        n = n\n    return n\n", "m.py")[
        "f"
    ]
    _, raised = running.call(function, (1,))
    assert raised is not None
    assert isinstance(raised.error, running.EndlessError)


def test_arguments_are_not_changed_by_a_call() -> None:
    function = running.define("def f(xs):\n    xs.append(1)\n    return xs\n", "m.py")["f"]
    given = [[], {"a": 1}]
    assert running.call(function, ([],)) == ([1], None)
    running.call(function, (given,))
    assert given == [[], {"a": 1}]


def test_names_are_found_where_those_of_one_side_are_all_taken() -> None:
    template = templates.trained()[0]
    for held_out in (False, True):
        side = {n for n in template.functions if naming.is_held_out(n) == held_out}
        taken = side if len(side) < len(template.functions) else set(template.functions[1:])
        names = naming.names_for(random.Random(0), template, held_out=held_out, taken=taken)
        assert names["f"] not in taken
        assert len(set(names.values())) == len(names)
    with pytest.raises(ValueError, match="all its names are taken"):
        naming.names_for(random.Random(0), template, held_out=False, taken=set(template.functions))


def test_draws_that_can_never_be_shown_end() -> None:
    def never() -> int:
        raise project.RedrawError

    with pytest.raises(RuntimeError, match="none of 1000 draws"):
        project.redrawn(never)
