"""Proofs of the mesh's secret: what is accepted, and what is not."""

import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpc.access.secret import VALID_S, MeshSecret, write_secret

METHOD = "/expertmesh.router.v1.Router/Join"
OTHER = "/expertmesh.router.v1.Router/DrainPool"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "secret"
    write_secret(path)
    return path


def test_a_new_secret_is_its_owners_alone_and_each_is_another(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_text()
    path.chmod(0o644)
    write_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() != first
    assert len(first.strip()) >= 32


def test_a_proof_serves_its_method_and_a_minute(path):
    now_s = [1_000_000.0]
    secret = MeshSecret(path, clock=lambda: now_s[0])
    proof = secret.proof(METHOD)
    assert secret.accepts(METHOD, proof)
    assert not secret.accepts(OTHER, proof)
    for passed_s, accepted in ((VALID_S, True), (VALID_S + 1, False), (-VALID_S - 1, False)):
        now_s[0] = 1_000_000.0 + passed_s
        assert secret.accepts(METHOD, proof) == accepted


def test_a_proof_does_not_hold_the_secret_and_another_secret_makes_another(path, tmp_path):
    other = tmp_path / "other"
    write_secret(other)
    clock = lambda: 5e8  # noqa: E731
    ours, theirs = MeshSecret(path, clock), MeshSecret(other, clock)
    assert path.read_text().strip() not in ours.proof(METHOD)
    assert not ours.accepts(METHOD, theirs.proof(METHOD))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
def test_no_text_that_was_not_made_with_the_secret_is_accepted(path, text):
    secret = MeshSecret(path, clock=lambda: 5e8)
    assert not secret.accepts(METHOD, text)
    assert not secret.accepts(METHOD, f"500000000.{text}")


def test_secrets_change_one_process_after_the_other(path, tmp_path):
    """The new secret is added everywhere, then made the first, then the old one is removed."""
    there, here = tmp_path / "there", path
    there.write_text(here.read_text())
    ours, theirs = MeshSecret(here), MeshSecret(there)
    old, new = here.read_text(), "a new secret of sufficient length\n"

    def agree() -> bool:
        return theirs.accepts(METHOD, ours.proof(METHOD)) and ours.accepts(
            METHOD, theirs.proof(METHOD)
        )

    for content in (old + new, new + old, new):
        here.write_text(content)
        assert agree()
        there.write_text(content)
        assert agree()
    here.write_text(old)
    assert not agree()


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"short\n", b"x" * 70_000, b"long enough secret\nno"]
)
def test_a_file_without_good_secrets_is_refused_by_name(tmp_path, content):
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"--secret-file: .* must hold secrets of at least"):
        MeshSecret(path)
    with pytest.raises(ValueError, match="--secret-file: cannot read"):
        MeshSecret(tmp_path / "absent")
