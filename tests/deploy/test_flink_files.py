"""The files that bring Flink up: local jars, containers, Kubernetes."""

import re
import string
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from contracts.errors import StoreError
from contracts.sections import Flink
from deploy.local.flink import find_flink_jars

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "flink"
KINDS = {
    "ConfigMap": {"data"},
    "PersistentVolumeClaim": {"spec"},
    "Service": {"spec"},
    "Deployment": {"spec"},
}
CONTAINER = {"name", "image", "args", "command", "ports", "resources", "readinessProbe", "volumeMounts"}


@pytest.fixture(scope="module")
def manifest() -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))


def pods(manifest: list[dict]) -> dict[str, dict]:
    return {one["metadata"]["name"]: one["spec"] for one in manifest if one["kind"] == "Deployment"}


def test_the_pom_has_the_versions_of_the_settings():
    properties = ElementTree.parse(FOLDER / "pom.xml").getroot().find("{*}properties")
    versions = {child.tag.rpartition("}")[2]: child.text for child in properties if isinstance(child.tag, str)}
    assert (versions["flink.version"], versions["job-server.version"]) == (Flink().version, Flink().job_server)


def test_jars_that_neither_lie_here_nor_can_be_brought_are_one_sentence(monkeypatch, tmp_path):
    from deploy.local import maven as brings

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(brings.shutil, "which", lambda name: None)
    with pytest.raises(StoreError, match=r"^Flink's jars are not in .+, and there is no `mvn` on PATH: install Maven"):
        find_flink_jars(Flink())
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] no such artifact'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setattr(brings.shutil, "which", lambda name: str(maven))
    with pytest.raises(
        Exception, match=r"bring Flink's jars \(no such artifact\); mend that, .*job-server\.version=9\.9"
    ):
        find_flink_jars(Flink(job_server="9.9"))
    assert all(path.suffix == ".lock" for path in (tmp_path / ".cache" / "rocket").iterdir())


def test_the_local_configuration_keeps_large_state_and_stays_on_this_machine():
    text = string.Template((FOLDER / "config.yaml").read_text()).substitute(folder="/x", rest_ports="1-2")
    config = yaml.safe_load(text)
    assert config["state.checkpoint-storage"] == "filesystem"
    assert config["state.checkpoints.dir"] == "file:///x/checkpoints"
    assert {value for key, value in config.items() if key.endswith(("bind-host", "bind-address"))} == {"127.0.0.1"}


def test_kubernetes_objects_have_known_fields(manifest: list[dict]):
    for one in manifest:
        assert set(one) == {"apiVersion", "kind", "metadata", *KINDS[one["kind"]]}, one["metadata"]
        assert one["apiVersion"] == ("apps/v1" if one["kind"] == "Deployment" else "v1")
    for spec in pods(manifest).values():
        assert set(spec) == {"replicas", "selector", "template"}
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
        for container in spec["template"]["spec"]["containers"]:
            assert set(container) <= CONTAINER
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "memory" in container["resources"]["limits"]


def test_services_find_their_pods_and_their_ports(manifest: list[dict]):
    found = pods(manifest)
    for service in (one for one in manifest if one["kind"] == "Service"):
        spec = found[service["spec"]["selector"]["app"]]["template"]["spec"]
        open_ports = {port["containerPort"] for container in spec["containers"] for port in container.get("ports", [])}
        assert {port["port"] for port in service["spec"]["ports"]} <= open_ports


def test_each_task_manager_has_python_workers_beside_it(manifest: list[dict]):
    spec = pods(manifest)["flink-taskmanager"]["template"]["spec"]
    workers = next(one for one in spec["containers"] if one["name"] == "python-workers")
    assert "apache_beam.runners.worker.worker_pool_main" in workers["command"]
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert compose["services"]["python-workers"]["network_mode"] == "service:taskmanager"


def test_containers_listen_on_this_machine_only_and_images_are_the_users():
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service.get("depends_on", {})) <= set(compose["services"])
