"""How parameters move: rules for the touched rows of a table, and for the towers as one flat tensor, by name."""

from contracts.training import Ftrl as FtrlSettings
from contracts.training import WideOptimizer
from model.optimizers.ftrl import Ftrl
from model.optimizers.row_rules import RowRule
from model.optimizers.row_sgd import RowSgd
from model.optimizers.rowwise_adagrad import RowwiseAdagrad
from model.optimizers.sparse_adam import SparseAdam


def row_rule(name: WideOptimizer, *, lr: float, start: float, ftrl: FtrlSettings) -> RowRule:
    """The rule of `train.embedding_optimizer` or `train.wide_optimizer`.

    Args:
        name: of the rule.
        lr: learning rate; alpha of FTRL.
        start: of Adagrad's accumulators.
        ftrl: the rest of FTRL's figures.
    """
    if name == "sparse_adam":
        return SparseAdam(lr)
    if name == "sgd":
        return RowSgd(lr)
    if name == "ftrl":
        return Ftrl(lr, ftrl.beta, ftrl.l1, ftrl.l2)
    return RowwiseAdagrad(lr, start)
