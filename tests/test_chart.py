"""The chart of `deploy/helm`: rendered by helm, and held to the schemas of Kubernetes.

`kubernetes-validate` has the schemas of each version (strict: no unknown field); those of the
oldest that the chart allows and of the newest are asked. The ServiceMonitor, which is none of
theirs, is checked here.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry import __version__
from registry.settings import Settings, unknown_names
from tests.support.recipes import DEPLOY, run

CHART = DEPLOY / "helm" / "registry"
IMAGE = {"repository": "images.example.com/registry"}
PLAIN = {"image": IMAGE}
FULL = {
    "image": IMAGE,
    "imagePullSecrets": [{"name": "pull"}],
    "replicas": 3,
    "externalUrl": "https://models.example.com",
    "trustedProxies": ["10.0.0.0/8"],
    "database": {"urlSecret": "db"},
    "storage": {"url": "s3://models?endpoint=https://s3.example&region=eu", "keysSecret": "k"},
    "persistence": {"enabled": False},
    "settings": {"REGISTRY_LIMITS__BLOB_BYTES": "1099511627776"},
    "extraEnvFrom": [{"secretRef": {"name": "more"}}],
    "service": {"annotations": {"a.example/b": "c"}},
    "ingress": {"enabled": True, "tlsSecret": "tls"},
    "serviceAccount": {"annotations": {"a.example/role": "r"}},
    "podAnnotations": {"a.example/b": "c"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "models", "operator": "Exists", "effect": "NoSchedule"}],
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
    "serviceMonitor": {"enabled": True, "tokenSecret": "t", "labels": {"release": "prometheus"}},
    "worker": {
        "enabled": True,
        "tokenSecret": "w",
        "labels": ["gpu"],
        "storageClass": "fast",
        "settings": {"REGISTRY_WORKER__PARALLEL": "2"},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
    },
}
SHARED_FOLDER = {
    "image": {**IMAGE, "tag": "1", "pullPolicy": "Always"},
    "replicas": 2,
    "database": {"urlSecret": "db", "migrationJob": False},
    "persistence": {"accessMode": "ReadWriteMany", "storageClass": "nfs"},
    "podDisruptionBudget": {"minAvailable": "50%"},
    "affinity": {"podAntiAffinity": {}},
}
OPEN = {
    "image": IMAGE,
    "auth": False,
    "persistence": {"existingClaim": "models"},
    "service": {"type": "NodePort"},
    "serviceAccount": {"create": False, "name": "mine"},
    "ingress": {"enabled": True, "className": "", "annotations": {}},
    "networkPolicy": {"enabled": True, "upstreamPorts": []},
    "worker": {"enabled": True, "replicas": 2},
}
SERVER = {"Deployment", "Service"}
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "plain": (PLAIN, SERVER | {"ServiceAccount", "PersistentVolumeClaim"}),
    "full": (
        FULL,
        SERVER
        | {"ServiceAccount", "Ingress", "Job", "NetworkPolicy", "PodDisruptionBudget"}
        | {"ServiceMonitor", "StatefulSet"},
    ),
    "shared-folder": (
        SHARED_FOLDER,
        SERVER | {"ServiceAccount", "PersistentVolumeClaim", "PodDisruptionBudget"},
    ),
    "open": (OPEN, SERVER | {"Ingress", "NetworkPolicy", "StatefulSet"}),
}
# What a ServiceMonitor of the Prometheus operator may hold, as far as the chart writes any.
MONITOR = {"selector": dict, "endpoints": list}
ENDPOINT = {"port": str, "path": str, "interval": str, "authorization": dict}


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths of what is not a mapping with keys of its own."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value


def helm() -> str:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("helm is not installed: the chart was not rendered")
    return found


def rendered(values: Mapping[str, Any], folder: Path) -> str:
    """What helm makes of the chart."""
    program, file = helm(), folder / "values.yaml"
    file.write_text(json.dumps(values))
    run(program, "lint", "--strict", CHART, "-f", file)
    return run(program, "template", "r", CHART, "-f", file, "--kube-version", "1.31.0")


def parsed(text: str) -> list[Any]:
    return [one for one in yaml.safe_load_all(text) if one]


def test_the_chart_has_our_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_value_is_described_by_the_schema_and_used() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    templates = templates.replace("$worker.", ".Values.worker.")
    templates = templates.replace("$policy.", ".Values.networkPolicy.")
    assert "additionalProperties" in schema
    for path, _ in leaves(values):
        node = schema
        for name in path.split(".")[1:]:
            reference = node.get("$ref", "").rpartition("/")[2]
            node = schema["definitions"][reference] if reference else node
            node = node["properties"][name] if "properties" in node else {}
        whole = path
        while f".Values{whole}" not in templates:
            whole = whole.rpartition(".")[0]
            assert whole, f"{path} is used nowhere"
    used = set(re.findall(r"\.Values((?:\.\w+)+)", templates))
    known = {path for path, _ in leaves(values)}
    for path in used:
        assert any(leaf == path or leaf.startswith(path + ".") for leaf in known), path


@pytest.mark.parametrize("case", CASES)
def test_helm_renders_the_chart(case: str, tmp_path: Path) -> None:
    values, kinds = CASES[case]
    made = parsed(rendered(values, tmp_path))
    assert {one["kind"] for one in made} == kinds
    names = {(one["kind"], one["metadata"]["name"]) for one in made}
    assert len(names) == len(made)
    (server,) = [one for one in made if one["kind"] == "Deployment"]
    (pod,) = server["spec"]["template"]["spec"]["containers"]
    assert pod["securityContext"]["readOnlyRootFilesystem"] is True
    given = {item["name"]: item.get("value", "from a secret") for item in pod["env"]}
    assert not unknown_names(given)
    Settings.load({name: text for name, text in given.items() if text != "from a secret"})
    for one in made:
        if one["kind"] == "Service":
            assert one["spec"]["selector"].items() <= _labels(made, one).items()
        if one["kind"] == "ServiceMonitor":
            _is_a_monitor(one, made)


def _labels(made: list[Any], service: Any) -> dict[str, str]:
    wanted = service["spec"]["selector"]["app.kubernetes.io/component"]
    kind = {"server": "Deployment", "worker": "StatefulSet"}[wanted]
    (one,) = [one for one in made if one["kind"] == kind]
    labels: dict[str, str] = one["spec"]["template"]["metadata"]["labels"]
    return labels


def _is_a_monitor(monitor: Any, made: list[Any]) -> None:
    """Its fields are known, and it finds a port of just one service."""
    assert {name: type(value) for name, value in monitor["spec"].items()} == MONITOR
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [
        one
        for one in made
        if one["kind"] == "Service" and wanted <= one["metadata"]["labels"].items()
    ]
    assert len(found) == 1
    for endpoint in monitor["spec"]["endpoints"]:
        assert {name: type(value) for name, value in endpoint.items()} == ENDPOINT
        assert endpoint["port"] in [port["name"] for port in found[0]["spec"]["ports"]]
        assert endpoint["authorization"]["credentials"].keys() == {"name", "key"}


def test_what_runs_before_an_install_needs_nothing_that_the_install_makes(tmp_path: Path) -> None:
    made = parsed(rendered(FULL, tmp_path))
    is_hook = [one for one in made if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    later = {one["metadata"]["name"] for one in made if one["kind"] in ("ServiceAccount", "Secret")}
    for one in is_hook:
        assert one["spec"]["template"]["spec"].get("serviceAccountName") not in later


@pytest.mark.parametrize("version", ["oldest", "newest"])
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_knows_every_field(case: str, version: str, tmp_path: Path) -> None:
    validate = shutil.which("kubernetes-validate")
    if validate is None:
        pytest.skip("kubernetes-validate is not installed: no schema of Kubernetes was asked")
    file = tmp_path / "made.yaml"
    text = rendered(CASES[case][0], tmp_path)
    known = [one for one in parsed(text) if one["kind"] != "ServiceMonitor"]
    file.write_text(yaml.safe_dump_all(known))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (oldest,) = re.findall(r">=(\d+\.\d+)\.0", chart["kubeVersion"])
    which = ["-k", oldest] if version == "oldest" else []
    told = run(validate, "--strict", *which, file)
    assert told.count(" passed for resource ") == len(known), told


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image": {}}, "image.repository: where the image was pushed"),
        ({"replicas": 2}, "more than one needs database.urlSecret"),
        ({"replicas": 2, "database": {"urlSecret": "db"}}, "ReadWriteMany"),
        ({"persistence": {"enabled": False}}, "without a volume"),
        ({"worker": {"enabled": True}}, "a worker needs a token"),
        ({"replcas": 2}, "replcas"),
        ({"settings": {"REGISTRY_PORT": 1}}, "settings"),
    ],
)
def test_helm_refuses_what_cannot_work(
    values: Mapping[str, Any], sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({**PLAIN, **values}))
    line = [helm(), "template", "r", CHART, "-f", file, "--kube-version", "1.31.0"]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    assert done.returncode != 0
    assert sentence in done.stderr
