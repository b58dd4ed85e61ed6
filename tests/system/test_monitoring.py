"""What the dashboard and the alert rules ask for is there, and traces hang together."""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
import requests
import yaml
from kombu import Connection, Exchange, Producer
from prometheus_client.parser import text_string_to_metric_families
from shop import Shop, eventually

from deploy.broker import QUEUES_OF
from deploy.processes import SERVICES, Process
from deploy.settings import ROOT
from tools.chaos.harness import Harness

MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "shop.dashboard.json"

#: Of Prometheus itself, and of exporters that run in containers only.
OF_OTHERS = {
    "up": {"job"},
    "pg_up": set(),
    "pg_stat_database_numbackends": {"datname"},
    "redis_up": set(),
    "redis_memory_used_bytes": set(),
}
OF_LIBRARIES = ("python_", "process_", "rabbitmq_", "erlang_", "telemetry_")
LABELS_OF_PROMETHEUS = {"job", "instance"}
KEYWORDS = {"by", "or", "and", "unless", "without", "on", "ignoring"}


def panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions() -> Iterator[str]:
    """Every PromQL expression that we have."""
    for panel in panels():
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "1m")
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def asked_for(expression: str) -> dict[str, set[str]]:
    """Return the metrics that an expression names, each with the labels that it selects by."""
    selectors = dict.fromkeys(re.findall(r"\b(\w+)(?=\{)", expression), "")
    found: dict[str, set[str]] = {name: set() for name in selectors}
    for name, matchers in re.findall(r"\b(\w+)\{([^}]*)\}", expression):
        found[name] |= set(re.findall(r"(\w+)\s*[=!]~?\s*\"", matchers))
    plain = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|without)\s*\([^)]*\)', "", expression)
    for name in re.findall(r"\b([a-z_]\w*)\b(?!\s*\()", plain):
        if name not in KEYWORDS:
            found.setdefault(name, set())
    return found


@pytest.fixture
def exposed(shop: Shop, stack: Harness) -> dict[str, set[str]]:
    """What is answered after everything has happened once: metrics, and their labels."""
    _let_everything_happen(shop, stack)
    return _exposed(stack)


def _exposed(stack: Harness) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    paths = [(stack.metrics_port(process.name), "/metrics", {}) for process in SERVICES]
    paths += [
        (stack.ports.rabbitmq_metrics, job.get("metrics_path", "/metrics"), job.get("params", {}))
        for job in yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
        if job["job_name"].startswith("rabbitmq")
    ]
    for port, path, params in paths:
        answer = requests.get(f"http://127.0.0.1:{port}{path}", params, timeout=30)
        assert answer.status_code == 200, answer.text
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                found[sample.name] |= set(sample.labels)
    return found


def _let_everything_happen(shop: Shop, stack: Harness) -> None:
    lamp = shop.create_product(qty=1)
    accepted = shop.order(lamp["id"]).json()["id"]
    assert shop.final_status(accepted) == "CONFIRMED"
    assert shop.order(lamp["id"]).status_code == 400
    shop.http.get(f"{shop.orders}?productId={lamp['id']}", timeout=30)
    with Connection(shop.environment["BROKER_URL"]) as connection:
        exchange = Exchange("order.exchange", type="topic", durable=True)
        producer = Producer(connection.channel(), exchange)
        producer.publish(b"not json", routing_key="order.created")
        # Of an older system, for a product that nobody has: refused by the stock.
        producer.publish(
            {"orderId": str(uuid4().int % 10**9), "productId": str(uuid4()), "quantity": 1},
            routing_key="order.created",
        )
    eventually(lambda: {"stock_refusals_total", "dead_letters"} <= _exposed(stack).keys())


class TestTheDashboardAndTheRules:
    def test_ask_for_nothing_that_no_process_tells(self, exposed: dict[str, set[str]]) -> None:
        for expression in expressions():
            for name, labels in asked_for(expression).items():
                known = {**exposed, **OF_OTHERS}
                assert name in known, f"nobody tells {name}: {expression}"
                unknown = labels - known[name] - LABELS_OF_PROMETHEUS
                assert not unknown, f"{name} has no {unknown}: {expression}"

    def test_ask_for_every_metric_of_ours(self, exposed: dict[str, set[str]]) -> None:
        asked = {name for expression in expressions() for name in asked_for(expression)}
        ours = {
            re.sub(r"_(bucket|sum|count|total)$", "", name)
            for name in exposed
            if not name.startswith(OF_LIBRARIES)
        }

        assert ours == {
            re.sub(r"_(bucket|sum|count|total)$", "", name)
            for name in asked - OF_OTHERS.keys()
            if not name.startswith("rabbitmq_")
        }

    def test_would_be_found_out(self) -> None:
        # Proves that names and labels are read out of expressions, or the tests above see nothing.
        assert asked_for('sum by (a) (rate(x_total{b="1",c=~"2"}[1m])) / y or vector(0) > 5') == {
            "x_total": {"b", "c"}, "y": set(),
        }  # fmt: skip


class TestTheDashboard:
    def test_lays_out_its_panels_without_gap_or_overlap(self) -> None:
        taken: dict[tuple[int, int], str] = {}
        for panel in panels():
            place = panel["gridPos"]
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                    taken[x, y] = panel["title"]
        height = max(y for _, y in taken) + 1

        assert taken.keys() == {(x, y) for x in range(24) for y in range(height)}

    def test_names_queues_that_there_are(self) -> None:
        names = {name for each in expressions() for name in re.findall(r'queue="([^"]+)"', each)}

        assert len(names) == 3
        assert names <= {queue for queues in QUEUES_OF.values() for queue in queues}

    def test_uses_the_data_source_that_is_provisioned(self) -> None:
        [source] = yaml.safe_load((MONITORING / "grafana/datasource.yml").read_text())[
            "datasources"
        ]
        used = {panel["datasource"]["uid"] for panel in panels() if "datasource" in panel}

        assert used == {source["uid"]}


class TestTheComposeFile:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    def mounts(self, service: str) -> dict[str, Path]:
        """Return the files of ours that a container sees, by where it sees them."""
        pairs = [str(volume).split(":") for volume in self.compose[service]["volumes"]]
        return {pair[1]: ROOT / pair[0] for pair in pairs if pair[0].startswith("./")}

    def test_mounts_what_prometheus_is_told_to_read(self) -> None:
        mounted = self.mounts("prometheus")
        [config] = [
            part.partition("=")[2]
            for part in self.compose["prometheus"]["command"]
            if part.startswith("--config.file=")
        ]
        rules = yaml.safe_load(mounted[config].read_text())["rule_files"]

        assert {config, *rules} == mounted.keys()
        assert all(file.is_file() for file in mounted.values())

    def test_mounts_what_grafana_is_told_to_show(self) -> None:
        mounted = self.mounts("grafana")
        home = self.compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        [provider] = yaml.safe_load((MONITORING / "grafana/dashboards.yml").read_text())[
            "providers"
        ]

        assert mounted[home] == ROOT / DASHBOARD
        assert Path(home).parent == Path(provider["options"]["path"])
        assert all(file.is_file() for file in mounted.values())

    def test_has_every_process_asked_for_its_metrics_where_it_listens(self) -> None:
        jobs = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
        addresses = {
            job["job_name"]: [
                *(
                    target
                    for static in job.get("static_configs", [])
                    for target in static["targets"]
                ),
                *(
                    f"{name}:{dns['port']}"
                    for dns in job.get("dns_sd_configs", [])
                    for name in dns["names"]
                ),
            ]
            for job in jobs
        }

        assert {process.name: addresses.pop(process.name) for process in SERVICES} == {
            process.name: [f"{process.name}:{self._port(process)}"] for process in SERVICES
        }
        # What is left tells of servers, and is one or beside one.
        hosts = {target.partition(":")[0] for targets in addresses.values() for target in targets}
        assert hosts == {"rabbitmq", "postgres-exporter", "redis-exporter"} <= self.compose.keys()

    def _port(self, process: Process) -> str:
        listens = [part for part in process.command if part.startswith("0.0.0.0:")]
        return process.environment.get("WORKER_METRICS_PORT") or listens[0].partition(":")[2]


class Span(NamedTuple):
    """What a process tells of a piece of work; ids as they travel."""

    process: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: dict[str, str]


SERVER, CLIENT, CONSUMER = 2, 3, 5


class Collector:
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - an extra
            ExportTraceServiceRequest,
        )

        self.spans: list[Span] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    [process] = [
                        each.value.string_value
                        for each in group.resource.attributes
                        if each.key == "service.name"
                    ]
                    spans.extend(
                        Span(
                            process, span.name, span.kind, span.trace_id.hex(),
                            span.span_id.hex(), span.parent_span_id.hex(),
                            {each.key: each.value.string_value for each in span.attributes},
                        )
                        for scope in group.scope_spans
                        for span in scope.spans
                    )  # fmt: skip
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def has(self, trace: str, process: str, name: str, kind: int = SERVER) -> Span:
        """Return the one span of this description, as soon as it has come in."""

        def found() -> list[Span]:
            wanted = (trace, process, name, kind)
            return [s for s in self.spans if (s.trace, s.process, s.name, s.kind) == wanted]

        return eventually(found)[0]


@pytest.fixture(scope="class")
def collector(stack: Harness) -> Iterator[Collector]:
    """What all four processes tell their traces to."""
    pytest.importorskip("opentelemetry.proto")
    collector = Collector()
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    try:
        for process in SERVICES:
            stack.set_environment(process.name, **told)
        stack.wait_ready()
        yield collector
    finally:
        for process in SERVICES:
            stack.set_environment(process.name, **dict.fromkeys(told))
        collector.close()


class TestTraces:
    def test_lead_from_a_request_to_all_that_is_done_for_it(
        self, shop: Shop, collector: Collector
    ) -> None:
        parent = "b7ad6b7169203331"

        def order(product_id: str, flags: str = "01") -> tuple[str, requests.Response]:
            trace = uuid4().hex
            headers = {"traceparent": f"00-{trace}-{parent}-{flags}", "X-Request-ID": trace}
            body = {"productId": product_id, "quantity": 1}
            return trace, shop.http.post(shop.orders, json=body, headers=headers, timeout=30)

        lamp = shop.create_product(qty=3)["id"]
        silent, answer = order(lamp, flags="00")
        assert answer.status_code == 201
        trace, answer = order(lamp)
        assert shop.final_status(answer.json()["id"]) == "CONFIRMED"

        request = collector.has(trace, "order-service", "POST /orders")
        assert request.parent == parent
        assert request.attributes["request_id"] == trace
        for process, queue in (
            ("orders-worker", "orders.persist"),
            ("products-worker", "product_order_queue"),
            ("orders-worker", "order_stock_queue"),
        ):
            batch = collector.has(trace, process, f"process {queue}", CONSUMER)
            assert batch.parent == request.id
            assert batch.id in {span.parent for span in collector.spans if span.kind == CLIENT}

        # One that only the product service can know of: asked by HTTP, and of its database.
        trace, answer = order(str(uuid4()))
        assert answer.status_code == 404
        asked = collector.has(trace, "product-service", "GET /products/<pk>")
        call = collector.has(trace, "order-service", "GET", CLIENT)
        assert asked.parent == call.id
        assert collector.has(trace, "order-service", "POST /orders").id == call.parent
        assert collector.has(trace, "product-service", "SELECT", CLIENT).parent == asked.id

        # Pages go another way.
        shop.http.get(f"{shop.products.removesuffix('/products')}/admin/login/", timeout=30)
        eventually(lambda: [span for span in collector.spans if span.name == "GET /admin/"])
        # Nor is anything told that nobody has asked for, or that loops ask for by themselves.
        assert silent not in {span.trace for span in collector.spans}
        assert all(span.parent or span.kind != CLIENT for span in collector.spans)

    def test_change_no_answer(self, shop: Shop, collector: Collector) -> None:  # noqa: ARG002 - traces
        refused = shop.http.get(shop.products, headers={"Host": "evil.example"}, timeout=30)

        assert refused.status_code == 400
        assert refused.headers["Content-Type"] == "application/problem+json"
