"""Schemes: which nets are trained together, and who follows whom, by name (`rocket.scheme`).

    rocket       light net and booster learn the label, the light net follows the booster (Zhou et al., AAAI 2018)
    offline      the booster of another run stands still and teaches (Hinton et al., 2015)
    rocket_kd    rocket, and a booster of another run teaches beside (Zhou et al., section 4)
    born_again   the light net of some time ago teaches the light net (Furlanello et al., ICML 2018)
    mutual       light net and booster follow each other (Zhang et al., CVPR 2018)
    one          branches over the light net's lower layers; a gate makes an ensemble that teaches them (Lan et al.,
                 NeurIPS 2018)
    own_teacher  an exit at each hidden layer follows the light net (Zhang et al., ICCV 2019)
    net_aug      the light net learns as a part of a widened one too (Cai et al., ICLR 2022)

All export the same light net. Who feels what, beside the label losses of light net and booster ("hint" is whatever
`rocket.hint` names, times lambda; a teacher is always detached):

    scheme       light net                booster                  nets of the scheme
    rocket       hint(booster)            the table in losses      -
    offline      hint(teacher)            -                        nothing: the teacher stands still
    rocket_kd    hint(booster), KD        the table in losses      nothing: the teacher stands still
    born_again   hint(last generation)    -                        nothing between two generations
    mutual       hint(booster)            hint(light net)          -
    one          hint(ensemble), labels   -                        gate: label of the ensemble; branches: label of the
                 of branches, ensemble                             ensemble, their own label, hint(ensemble)
    own_teacher  exits' label and hint,   -                        exits: label, hint(light net); maps: the distance
                 the layers' distance
    net_aug      lambda * label of the    -                        added columns: lambda * label of the widened net
                 widened net
"""

from collections.abc import Callable

import torch

from contracts.app import App
from model.schemes.born_again import BornAgain
from model.schemes.net_aug import NetAug
from model.schemes.offline import Offline, RocketKd
from model.schemes.one import One
from model.schemes.own_teacher import OwnTeacher
from model.schemes.scheme import Scheme

#: Name -> its module, made of an app.
SCHEMES: dict[str, Callable[[App], Scheme]] = {
    "rocket": lambda app: Scheme(),  # the form of all
    "offline": Offline,
    "rocket_kd": RocketKd,
    "born_again": BornAgain,
    "mutual": lambda app: Scheme(),  # both nets are there: `losses.both_ways` lets them follow
    "one": One,
    "own_teacher": OwnTeacher,
    "net_aug": NetAug,
}


def make_scheme(app: App, seed: int) -> Scheme:
    """The scheme that `rocket.scheme` names.

    Args:
        app: its settings; the check of the app knows that the scheme finds what it needs.
        seed: draws the first weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SCHEMES[app.config.rocket.scheme](app)
