import jax.numpy as jnp

from cptjax.training.profile import Profile


def test_the_steps_asked_for_are_traced(tmp_path):
    profile = Profile((2, 3), tmp_path / "profile")
    said = []
    for step in range(5):
        profile.before(step)
        result = jnp.sum(jnp.ones(10) * step)
        said.append(profile.after(step, result))
    profile.close()
    assert [step for step, line in enumerate(said) if line] == [2]  # counted from 0: the third step ends it
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_without_steps_nothing_is_traced(tmp_path):
    profile = Profile(None, tmp_path / "profile")
    profile.before(0)
    assert profile.after(0, None) is None
    profile.close()
    assert not (tmp_path / "profile").exists()
