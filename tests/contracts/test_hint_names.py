"""Which hint can stand where in an app, and what the refusal says."""

import re
import subprocess
import sys

import pytest

from contracts.hint_names import OF_LAYERS, OF_LOGITS, hint_names, hint_trouble

PLACES = {"hint": OF_LOGITS, "feature_hint": OF_LAYERS}
USABLE = {
    place: {name for name, row in hint_names().items() if row.takes in takes and not row.instead}
    for place, takes in PLACES.items()
}


@pytest.mark.parametrize("name", hint_names())
@pytest.mark.parametrize("place", PLACES)
def test_a_hint_is_taken_where_it_has_a_meaning_and_refused_with_an_alternative_elsewhere(
    place: str, name: str
) -> None:
    told = hint_trouble(name, place)
    assert (told is None) == (name in USABLE[place])
    if told is not None:
        assert "\n" not in told
        assert told.count("; ") == 1  # what is wrong; how to mend it
        setting, _, instead = told.rpartition("; ")[2].partition(" = ")
        instead = instead.split("'")[1]
        assert instead in USABLE[setting.split()[-1]], told


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        ("dkd", "hint", "its non-target part .* take hint = 'bernoulli_kd' instead"),
        ("dist", "hint", "its inter-class part .* take hint = 'dist_intra' instead"),
        ("kd", "hint", "softmax is over several classes, .* take hint = 'bernoulli_kd' instead"),
        ("softmax_mse", "hint", "several classes, .* take hint = 'bernoulli_mse' instead"),
        ("attention_kl", "feature_hint", "the light net has none; take feature_hint = 'similarity_preserving' instead"),
        ("attention_transfer", "feature_hint", "no spatial maps; take feature_hint = 'nst_polynomial' instead"),
        ("pairwise", "feature_hint", "no spatial maps; take feature_hint = 'similarity_preserving' instead"),
        ("layer_mse", "feature_hint", "token by token, .* reads no sequence; take feature_hint = 'fitnet' instead"),
        (
            "gan_compression",
            "feature_hint",
            "generated pictures, .* judge clicks; take feature_hint = 'fitnet' instead",
        ),
        ("localization", "hint", "over bins, and a click has one logit; take hint = 'bernoulli_kd' instead"),
        ("gradient_attention", "hint", "gradients by the embeddings; set it as feature_hint = 'gradient_attention'"),
        ("adversarial", "hint", "it compares hidden layers; set it as feature_hint = 'adversarial'"),
        ("rkd", "hint", "it compares hidden layers; set it as feature_hint = 'rkd'"),
        ("logit_mse", "feature_hint", "it compares logits; set it as hint = 'logit_mse'"),
        ("rkd_distanz", "feature_hint", "no such hint; did you mean 'rkd_distance'?"),
        ("bernouli_kl", "hint", "no such hint; did you mean 'bernoulli_kl'?"),
    ],
)
def test_refusals_read_as_one_sentence(name: str, place: str, said: str) -> None:
    told = hint_trouble(name, place)
    assert told is not None
    assert re.search(said, told), told


def test_what_takes_the_place_of_a_refused_hint_is_itself_taken() -> None:
    for name, row in hint_names().items():
        if row.instead:
            assert not hint_names()[row.instead].instead, name


def test_names_are_known_without_torch() -> None:
    code = (
        "import sys; from contracts.hint_names import hint_names; print('kd' in hint_names(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"
