"""What training watches reaches the metrics and the report, name by name."""

import pytest

from flows.watch_report import watch_charts, watch_rows
from model.trainer import Trainer
from nodes.metrics_http import Metrics
from nodes.watch_metrics import WatchMetrics
from tests.random_examples import random_examples, small_app

FEATURES = {"feature_hint": "cosine", "feature_layers": [[0, 0]], "gate": False, "watch_every": 1}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    model = {"booster": {"hidden": [8]}, "sharing": "separate"}
    app = small_app(tmp_path_factory.mktemp("app") / "app", {"model": model, "rocket": FEATURES})
    trainer, frame = Trainer(app), random_examples(app, 256)
    for start in range(0, 256, 64):
        trainer.learn(frame[start : start + 64])
    return trainer.watch.history


def test_every_look_has_its_gauges(history: list[dict[str, float]]) -> None:
    newest = history[-1]
    with Metrics("train") as metrics:
        WatchMetrics(metrics)(newest)
        told = dict(line.rsplit(" ", 1) for line in metrics.text().splitlines() if line.startswith("ctr_train"))
    assert float(told["ctr_train_hint_share"]) == pytest.approx(newest["hint_share"])
    assert float(told["ctr_train_booster_lead"]) == pytest.approx(newest["booster_lead"])
    for net, term in (
        ("light", "light"),
        ("light", "hint"),
        ("light", "feature"),
        ("booster", "booster"),
        ("rows", "hint"),
    ):
        value = float(told[f'ctr_train_gradient{{net="{net}",term="{term}"}}'])
        assert value == pytest.approx(newest[f"grad_{net}_{term}"])
        assert value > 0
    for table in ("light", "booster"):
        assert float(told[f'ctr_train_new_rows_share{{table="{table}"}}']) == pytest.approx(newest[f"new_{table}"])
        assert float(told[f'ctr_train_embedding_rms{{table="{table}"}}']) > 0
    assert float(told['ctr_train_term{term="feature"}']) == pytest.approx(newest["feature"])


def test_the_report_says_each_figure_and_draws_them(history: list[dict[str, float]]) -> None:
    rows = dict(watch_rows(history))
    newest = history[-1]
    assert rows["booster's lead, nats a row"] == f"{newest['booster_lead']:.4f}"
    assert rows["gradient of hint on light"] == f"{newest['grad_light_hint']:.2e}"
    assert len([said for said in rows if said.startswith("gradient of")]) == sum(
        name.startswith("grad_") and not name.startswith("grad_norm_") for name in newest
    )
    drawn = watch_charts(history)
    assert len(drawn) == 5
    assert all(drawing.startswith("<svg") for drawing in drawn.values())
    assert (watch_charts(history[:1]), watch_charts([]), watch_rows([])) == ({}, {}, [])
