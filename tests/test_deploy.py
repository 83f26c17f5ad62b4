"""The files of `deploy/` can be read, and say the same as the settings and each other.

Where a program that reads them is installed (nginx, caddy, systemd, helm, docker compose), it has
to accept them. `tests/integration/test_proxies.py` and `test_replicas.py` run the proxies.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry import __version__
from registry.settings import CLIENT_NAMES, DEFAULT_PORT, Settings, unknown_names
from tests.support.certificates import Authority
from tests.support.proxies import program
from tests.support.recipes import COMPOSE, DEPLOY, FILLED_IN, compose, environment

ROOT = Path(__file__).resolve().parent.parent
CHART = DEPLOY / "helm" / "registry"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
WORKERS = {"REGISTRY_WORKER_SERVER", "REGISTRY_WORKER_TOKEN"}  # options of `registry worker`
FULL = {
    "replicas": 3,
    "externalUrl": "https://models.example.com",
    "trustedProxies": ["10.0.0.0/8"],
    "database": {"urlSecret": "db"},
    "storage": {"url": "s3://models?endpoint=https://s3.example&region=eu", "keysSecret": "k"},
    "persistence": {"enabled": False},
    "settings": {"REGISTRY_LIMITS__BLOB_BYTES": "1099511627776"},
    "ingress": {"enabled": True, "tlsSecret": "tls"},
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
    "serviceMonitor": {"enabled": True, "tokenSecret": "t"},
    "worker": {"enabled": True, "tokenSecret": "w", "labels": ["gpu"]},
}
PLAIN_KINDS = {"Deployment", "Service", "ServiceAccount"}
FULL_KINDS = {"Ingress", "Job", "NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor"} | {
    "StatefulSet"
}


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths of what is not a mapping with keys of its own."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value


def run(*command: str | Path, **environ: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- names and numbers


@pytest.mark.parametrize(
    "file", [*FILES, ROOT / "docs" / "operations.md"], ids=lambda path: path.name
)
def test_every_setting_that_is_named_exists(file: Path) -> None:
    named = set(re.findall(r"REGISTRY_[A-Z0-9_]*[A-Z0-9]", file.read_text()))
    named -= WORKERS | CLIENT_NAMES
    assert not unknown_names(dict.fromkeys(named, ""))


def test_the_service_takes_what_the_compose_file_sets() -> None:
    given = environment(compose()["services"]["registry"])
    assert not unknown_names(given)
    settings = Settings.load(given)
    assert settings.database_url == "postgresql://registry:p@postgres:5432/registry"
    assert settings.external_url == "https://models.example.com"
    services, networks = compose()["services"], compose()["networks"]
    caddy = services["caddy"]["networks"]["inside"]["ipv4_address"]
    assert settings.trusted_proxies == (caddy,)
    assert networks["inside"]["ipam"]["config"][0]["subnet"].rsplit(".", 1)[0] in caddy
    s3 = services["s3"]["environment"]
    assert settings.s3.access_key == s3["ROOT_ACCESS_KEY"]
    assert settings.s3.secret_key == s3["ROOT_SECRET_KEY"]


def test_the_compose_file_refers_to_what_is_in_it() -> None:
    parsed = compose()
    volumes, networks = parsed["volumes"], parsed["networks"]
    for name, service in parsed["services"].items():
        assert set(service["networks"]) <= set(networks), name
        assert set(service.get("depends_on", [])) <= set(parsed["services"]), name
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            assert source in volumes or source.startswith(("./", "/")), name
            assert not source.startswith("./") or (COMPOSE.parent / source).exists(), target
    assert "inside" in parsed["services"]["registry"]["networks"]


def test_what_is_to_be_filled_in_is_listed() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    listed = set(re.findall(r"^(\w+)=", (COMPOSE.parent / "env.example").read_text(), re.M))
    assert wanted <= listed
    assert wanted == set(FILLED_IN)


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("nginx.conf", r"server 127\.0\.0\.1:(\d+) fail"),
        ("Caddyfile", r"reverse_proxy .*127\.0\.0\.1:(\d+)"),
        ("Containerfile", r"(?:EXPOSE |REGISTRY_PORT=)(\d+)"),
        ("compose/Caddyfile", r"port (\d+)"),
        ("compose/compose.yaml", r"http://registry:(\d+)"),
        ("helm/registry/templates/_names.tpl", r'REGISTRY_PORT, value: "(\d+)"'),
        ("helm/registry/templates/server.yaml", r"containerPort: (\d+)"),
        ("helm/registry/templates/network.yaml", r"port: (1\d+)"),
    ],
)
def test_the_port_is_the_same_everywhere(file: str, pattern: str) -> None:
    found = re.findall(pattern, (DEPLOY / file).read_text())
    assert set(found) == {str(DEFAULT_PORT)}


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("systemd/registry.service", r"TimeoutStopSec=(\d+)"),
        ("compose/compose.yaml", r"stop_grace_period: (\d+)s +# longer"),
        ("helm/registry/values.yaml", r"terminationGracePeriodSeconds: (\d+)"),
    ],
)
def test_a_stop_leaves_time_for_running_transfers(file: str, pattern: str) -> None:
    found = re.findall(pattern, (DEPLOY / file).read_text())
    assert len(found) == 1
    assert int(found[0]) >= Settings.load({}).limits.shutdown_s + 10


def test_the_image_is_built_of_what_is_in_the_sources() -> None:
    taken = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert all((ROOT / name).exists() for name in taken)
    assert {"registry", "migrations", "pyproject.toml", "requirements.lock"} <= taken
    text = (DEPLOY / "Containerfile").read_text()
    assert "--require-hashes" in text
    assert re.search(r"^USER 65532", text, re.M), "not root"
    settings = dict(re.findall(r"^ +(REGISTRY_\w+)=([^\s\\]+)", text, re.M))
    made = Settings.load(settings)
    assert (made.host, made.auth, str(made.data)) == ("0.0.0.0", True, "/data")


# ---- the chart


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


def helm() -> list[str]:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("helm is not installed: the chart was not rendered")
    return [found]


@pytest.mark.parametrize("values", [{}, FULL], ids=["plain", "full"])
def test_helm_renders_the_chart(values: Mapping[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    run(*helm(), "lint", CHART, "-f", file)
    text = run(*helm(), "template", "r", CHART, "-f", file, "--kube-version", "1.31.0")
    made = [one for one in yaml.safe_load_all(text) if one]
    kinds = {one["kind"] for one in made}
    assert kinds == (
        PLAIN_KINDS | FULL_KINDS if values else PLAIN_KINDS | {"PersistentVolumeClaim"}
    )
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


def _labels(made: list[Any], service: Any) -> dict[str, str]:
    wanted = service["spec"]["selector"]["app.kubernetes.io/component"]
    kind = {"server": "Deployment", "worker": "StatefulSet"}[wanted]
    (one,) = [one for one in made if one["kind"] == kind]
    labels: dict[str, str] = one["spec"]["template"]["metadata"]["labels"]
    return labels


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
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
    file.write_text(json.dumps(values))
    line = [*helm(), "template", "r", CHART, "-f", file, "--kube-version", "1.31.0"]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    assert done.returncode != 0
    assert sentence in done.stderr


# ---- alerts


def test_alerts_are_about_what_is_measured() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    code = "".join(path.read_text() for path in (ROOT / "registry" / "web").glob("metrics.py"))
    meter = (ROOT / "registry" / "services" / "inference" / "metering.py").read_text()
    for rule in rules["groups"][0]["rules"]:
        assert rule["annotations"]["summary"]
        for name in re.findall(r"registry_\w+", rule["expr"]):
            *_, inference = name.partition("registry_inference_")
            if inference:
                assert f'"{{prefix}}_{inference.removesuffix("_total")}"' in meter, name
            else:
                told = name.removeprefix("registry_").replace("data_", "").removesuffix("_bytes")
                assert f'"{name}"' in code or f'"{told}"' in code, name


# ---- programs that read the files


def test_docker_compose_takes_the_file() -> None:
    found = shutil.which("docker-compose")
    line = [found] if found else ["docker", "compose"]
    known = shutil.which(line[0])
    if known is None or subprocess.run([*line, "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed: its file was only parsed")
    run(*line, "--profile", "worker", "-f", COMPOSE, "config", "-q", **FILLED_IN)


@pytest.mark.parametrize("name", ["registry", "registry-worker"])
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed: its units were not read")
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace("/opt/registry/bin/registry", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert unit.name not in done.stdout + done.stderr, "a line about it is a complaint"


def test_caddy_takes_both_files() -> None:
    caddy = program("caddy")
    if caddy is None:
        pytest.skip("caddy is not installed: its files were not read")
    for file in (DEPLOY / "Caddyfile", DEPLOY / "compose" / "Caddyfile"):
        line: list[str | Path] = [caddy, "adapt", "--config", file, "--adapter", "caddyfile"]
        run(*line, MODELS_HOST="models.example.com")


def test_nginx_takes_its_file(tmp_path: Path) -> None:
    nginx = program("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed: its file was not read")
    pair = Authority(tmp_path).issue("models.example.com", "blobs.example.com")
    recipe = (DEPLOY / "nginx.conf").read_text()
    recipe = recipe.replace("/etc/ssl/registry/server.pem", str(pair.certificate))
    recipe = recipe.replace("/etc/ssl/registry/server.key", str(pair.key))
    recipe = re.sub(r"listen (\[::\]:)?(443|80)", r"listen \g<1>11\2", recipe)  # no root needed
    file = tmp_path / "nginx.conf"
    file.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off;\n{recipe}\n}}\n")
    run(nginx, "-t", "-q", "-c", file, "-p", tmp_path, "-e", tmp_path / "error.log")
