"""The filter's program does what the rules say, on both machines, run by an interpreter of ours."""

import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.sandbox.kernel.seccomp import (
    ALLOW,
    AUDIT_ARCH,
    ERRNO,
    KILL_PROCESS,
    USER_NOTIF,
    program,
)
from expertmesh.agent.sandbox.kernel.syscalls import (
    EVERYWHERE,
    LAST_REVIEWED,
    MACHINES,
    SUPERVISED,
    WITH_OWN_NETWORK,
    WITHOUT_NAMESPACES,
    Rule,
    When,
    numbers,
)
from tests.support.examples import examples

FILTERS = {
    "bubblewrap": (*EVERYWHERE, *WITH_OWN_NETWORK),
    "landlock": (*EVERYWHERE, *WITHOUT_NAMESPACES),
}
HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"__NR_(\w+)\s+(\d+)"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"__NR(?:3264)?_(\w+)\s+(\d+)"),
}


def judge(filter_program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would do, by the classic BPF of the manual."""
    padded = [*arguments, *(0,) * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, arch, 0, *(one & (1 << 64) - 1 for one in padded))
    instructions = list(struct.iter_unpack("=HBBI", filter_program))
    accumulator = position = 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            position += value
        elif code == 0x15:
            position += if_true if accumulator == value else if_false
        elif code == 0x25:
            position += if_true if accumulator > value else if_false
        elif code == 0x06:
            return int(value)
        else:
            raise AssertionError(f"code {code}")


def holds(when: When, arguments: tuple[int, ...]) -> bool:
    value = arguments[when.argument]
    word = value >> 32 if when.high else value & 0xFFFFFFFF
    return (word & when.mask in when.values) != when.otherwise


def expected(rules: tuple[Rule, ...], name: str, arguments: tuple[int, ...]) -> int:
    for rule in rules:
        if rule.call == name and all(holds(when, arguments) for when in rule.when):
            return USER_NOTIF if rule.error == SUPERVISED else ERRNO | rule.error
    return ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", FILTERS)
@given(data=st.data())
@examples(300)
def test_each_call_is_judged_by_the_first_rule_that_fits(
    machine: str, kind: str, data: st.DataObject
) -> None:
    number_of = numbers(machine)
    name = data.draw(st.sampled_from(sorted(number_of)))
    known = {value for rule in FILTERS[kind] for when in rule.when for value in when.values}
    word = st.one_of(
        st.sampled_from(sorted(known)), st.integers(0, 64), st.integers(0, (1 << 32) - 1)
    )
    whole = st.tuples(word, st.sampled_from([0, 1, 0xFFFFFFFF])).map(lambda w: w[0] | w[1] << 32)
    arguments = data.draw(st.tuples(*[whole] * 6))
    judged = judge(program(FILTERS[kind], machine), AUDIT_ARCH[machine], number_of[name], arguments)
    assert judged == expected(FILTERS[kind], name, arguments)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", FILTERS)
def test_what_no_rule_names_is_allowed_if_it_was_reviewed(machine: str, kind: str) -> None:
    named, filter_program = set(numbers(machine).values()), program(FILTERS[kind], machine)
    for number in set(range(LAST_REVIEWED + 1)) - named:
        assert judge(filter_program, AUDIT_ARCH[machine], number) == ALLOW
    for number in (LAST_REVIEWED + 1, 1000, 0x40000000, 0x40000000 | 41, 0xFFFFFFFF):
        judged = judge(filter_program, AUDIT_ARCH[machine], number)
        assert judged == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("arch", [0x40000003, 0x40000028, 0, 0xC00000F3])
def test_another_architectures_calls_end_the_process(arch: int) -> None:
    """i386's getpid by int 0x80 on x86-64, and such."""
    for machine in MACHINES:
        assert judge(program(EVERYWHERE, machine), arch, 20) == KILL_PROCESS


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_the_kernels(machine: str) -> None:
    header, pattern = HEADERS[machine]
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    kernels = {name: int(value) for name, value in re.findall(pattern, header.read_text())}
    ours = numbers(machine)
    assert len(ours) > 80
    assert {name: kernels[name] for name in ours if name in kernels} == {
        name: number for name, number in ours.items() if name in kernels
    }
    assert {name for name in ours if name not in kernels and ours[name] < 450} == set()


def test_every_rule_is_about_a_call_with_a_number() -> None:
    for rules in FILTERS.values():
        assert {rule.call for rule in rules} <= set(numbers("x86_64"))


def test_other_machines_are_not_guessed() -> None:
    with pytest.raises(KeyError):
        program(EVERYWHERE, "riscv64")
