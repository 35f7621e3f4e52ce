"""API v1 in-process: results in forms and parts, pages of jobs, retry, uploads, OpenAPI."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from starlette.testclient import TestClient

from agentic_ray.master import Journal, Master, Registry, journal
from agentic_ray.service import routes
from agentic_ray.service.bodies import RequestError
from agentic_ray.service.content import chosen_form, span_of
from agentic_ray.service.data import DataShelf
from agentic_ray.service.http import create_app

NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def held() -> threading.Event:
    return threading.Event()


@pytest.fixture(scope="module")
def registry(held: threading.Event) -> Registry:
    made = Registry()
    made.register("echo", lambda params: params)
    made.register("nan", lambda params: [math.nan] * params)
    made.register("numbers", lambda params: list(range(params)))
    made.register("fail", lambda params: 1 / 0)
    made.register("wait", lambda params: held.wait(60))
    return made


@pytest.fixture(scope="module")
def client(
    registry: Registry, held: threading.Event, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("service")
    with Master(workloads=registry, store=Journal(folder / "j")) as master:
        shelf = DataShelf(folder / "data", max_bytes=2_000_000, owner_bytes=5_000_000)
        app = create_app(master, data=shelf)
        yield TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
        held.set()
        app.state.close()


def submit(client: TestClient, workload: str, params: Any, **further: Any) -> str:
    body = {"workload": workload, "params": params, **further}
    answer = client.post("/submit", json=body)
    assert answer.status_code == 202, answer.text
    task_id: str = answer.json()["task_id"]
    return task_id


def ended(client: TestClient, task_id: str) -> dict[str, Any]:
    for _ in range(3000):
        told: dict[str, Any] = client.get(f"/status/{task_id}").json()
        if told["state"] not in ("queued", "running"):
            return told
        time.sleep(0.01)
    raise AssertionError("it does not end")


# --- results ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 50_000])  # the second is kept beside the journal
def test_a_result_comes_in_the_form_that_is_asked_for(client: TestClient, count: int) -> None:
    task_id = submit(client, "numbers", count)
    assert ended(client, task_id)["result"] == list(range(count))
    plain = client.get(f"/result/{task_id}")
    assert plain.headers["content-type"] == "application/json"
    assert plain.json() == list(range(count))
    found = client.get(f"/result/{task_id}", headers={"Accept": NPY})
    assert np.load(io.BytesIO(found.content)).tolist() == list(range(count))
    found = client.get(f"/result/{task_id}", headers={"Accept": ARROW})
    table = pa.ipc.open_stream(found.content).read_all()
    assert table.column("value").to_pylist() == list(range(count))
    found = client.get(f"/result/{task_id}", headers={"Accept": f"{PARQUET};q=0.9, */*;q=0.1"})
    assert found.headers["content-type"] == PARQUET
    assert parquet.read_table(io.BytesIO(found.content)).num_rows == count


@pytest.mark.parametrize("count", [2, 50_000])
def test_numbers_that_json_does_not_have_are_text_in_it_and_numbers_elsewhere(
    client: TestClient, count: int
) -> None:
    task_id = submit(client, "nan", count)
    assert ended(client, task_id)["result"] == ["NaN"] * count
    assert client.get(f"/result/{task_id}").json() == ["NaN"] * count
    found = client.get(f"/result/{task_id}", headers={"Accept": NPY})
    assert np.isnan(np.load(io.BytesIO(found.content))).all()


def test_tables_of_columns_and_of_rows(client: TestClient) -> None:
    for value in ({"a": [1, 2], "b": ["x", "y"]}, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]):
        task_id = submit(client, "echo", value)
        ended(client, task_id)
        found = client.get(f"/result/{task_id}", headers={"Accept": ARROW})
        table = pa.ipc.open_stream(found.content).read_all()
        assert table.to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


@pytest.mark.parametrize("value", ["text", {"a": 1}, [[1], [2, 3]], None, [1, "a"]])
def test_a_form_that_a_result_does_not_have_is_told(client: TestClient, value: Any) -> None:
    task_id = submit(client, "echo", value)
    ended(client, task_id)
    answer = client.get(f"/result/{task_id}", headers={"Accept": NPY})
    assert answer.status_code == 406
    assert client.get(f"/result/{task_id}", headers={"Accept": "text/html"}).status_code == 406
    assert client.get(f"/result/{task_id}").json() == value


def test_parts_of_a_result(client: TestClient) -> None:
    task_id = submit(client, "numbers", 50_000)
    ended(client, task_id)
    whole = client.get(f"/result/{task_id}")
    size = len(whole.content)
    for header, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=65530-65550", 65530, 65551),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=10-{size + 100}", 10, size),
    ):
        part = client.get(f"/result/{task_id}", headers={"Range": header})
        assert part.status_code == 206
        assert part.content == whole.content[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    beyond = client.get(f"/result/{task_id}", headers={"Range": f"bytes={size}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{size}"
    for header in ("bytes=5-4", "bytes=a-b", "lines=1-2", "bytes=-", "bytes=0-1,5-6"):
        assert client.get(f"/result/{task_id}", headers={"Range": header}).status_code == 200
    changed = {"Range": "bytes=0-0", "If-Range": '"other"'}
    assert client.get(f"/result/{task_id}", headers=changed).status_code == 200
    same = {"Range": "bytes=0-0", "If-Range": whole.headers["etag"]}
    assert client.get(f"/result/{task_id}", headers=same).status_code == 206


def test_a_result_that_is_not_there(client: TestClient, held: threading.Event) -> None:
    failed = submit(client, "fail", 1)
    assert ended(client, failed)["state"] == "failed"
    answer = client.get(f"/result/{failed}")
    assert answer.status_code == 409
    assert "ZeroDivisionError" in answer.json()["detail"]
    waits = submit(client, "wait", 1)
    answer = client.get(f"/result/{waits}")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    assert client.post(f"/retry/{waits}").status_code == 409
    client.post(f"/cancel/{waits}")
    held.set()
    assert client.get("/result/x").status_code == 404


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/html, application/*;q=0.5", "application/json"),
        (f"{NPY}, application/json;q=0.5", NPY),
        (f"application/json;q=0, {ARROW};q=0.1", ARROW),
        ("application/json;q=x, */*;q=0.1", NPY),
    ],
)
def test_accept(accept: str | None, form: str) -> None:
    assert chosen_form(accept) == form
    with pytest.raises(RequestError):
        chosen_form("image/png, application/json;q=0")


def test_an_empty_result_has_no_parts() -> None:
    assert span_of(None, 0) is None
    with pytest.raises(RequestError):
        span_of("bytes=0-", 0)


def test_head_is_get_without_a_body(client: TestClient) -> None:
    task_id = submit(client, "numbers", 10)
    ended(client, task_id)
    for path in ("/healthz", "/jobs", f"/status/{task_id}", f"/result/{task_id}", "/openapi.json"):
        full, head = client.get(path), client.head(path)
        assert head.status_code == full.status_code == 200
        assert head.content == b""
        assert head.headers["content-type"] == full.headers["content-type"]
    assert client.head("/status/x").status_code == 404
    assert client.head("/submit").status_code == 405


# --- lists, retry, workloads --------------------------------------------------------------


def test_jobs_by_pages_and_filters(registry: Registry) -> None:
    with Master(workloads=registry) as master:
        client = TestClient(create_app(master), base_url="http://127.0.0.1:8080")
        made = [
            submit(client, ("echo", "fail")[i % 2], i, tags=[f"t{i % 3}", "all"]) for i in range(10)
        ]
        for task_id in made:
            ended(client, task_id)
        found: list[str] = []
        cursor: str | None = None
        while True:
            query = {"limit": "3"} | ({} if cursor is None else {"cursor": cursor})
            page = client.get("/jobs", params=query).json()
            found += [job["task_id"] for job in page["jobs"]]
            cursor = page["next"]
            if cursor is None:
                break
            if len(found) == 3:
                made.append(submit(client, "echo", "later"))  # moves no page
        assert found == made[:10][::-1]

        def of(**query: Any) -> list[str]:
            return [job["task_id"] for job in client.get("/jobs", params=query).json()["jobs"]]

        ended(client, made[10])
        assert of(workload="fail") == made[1:10:2][::-1]
        assert of(state="failed") == made[1:10:2][::-1]
        assert of(state=["failed", "succeeded"]) == made[::-1]
        assert of(tag="t0") == made[0:10:3][::-1]
        assert of(tag=["t0", "t1"]) == []
        assert of(user="nobody") == []
        first = client.get(f"/status/{made[4]}").json()["created_at"]
        assert made[4] not in of(created_after=first)
        assert set(of(created_before=first)).isdisjoint(made[5:])
        for cursor in ("x", "", "=", "é", "9" * 100, "-1"):
            assert client.get("/jobs", params={"cursor": cursor}).status_code == 422


def test_jobs_are_listed_as_far_back_as_the_journal_goes(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_SHOWN_FINISHED", 5)
    with Master(workloads=registry, journal=tmp_path) as master:
        client = TestClient(create_app(master), base_url="http://127.0.0.1:8080")
        made = [
            submit(client, ("echo", "fail")[i % 10 == 0], i, tags=[f"t{i % 3}"], user=f"u{i % 2}")
            for i in range(40)
        ]
        for task_id in made:
            ended(client, task_id)
        assert len(master.jobs()) == 5

        def pages(**query: Any) -> list[str]:
            found: list[str] = []
            cursor: str | None = None
            while True:
                asked = query | ({} if cursor is None else {"cursor": cursor})
                page = client.get("/jobs", params=asked).json()
                found += [job["task_id"] for job in page["jobs"]]
                cursor = page["next"]
                if cursor is None:
                    return found

        assert pages(limit=7) == made[::-1]
        assert client.get("/jobs?limit=7").json()["total"] == 40
        assert client.get("/jobs?limit=7&user=u1").json()["total"] == 20
        assert pages(limit=7, user="u1") == made[1::2][::-1]
        assert pages(limit=3, workload="fail") == made[::10][::-1]
        assert pages(limit=20, tag="t0", state="succeeded") == [
            made[i] for i in range(39, -1, -1) if i % 3 == 0 and i % 10
        ]
        # A filter that few jobs pass is looked for a piece at a time.
        monkeypatch.setattr(routes, "_LOOKED_AT", 10)
        monkeypatch.setattr(routes, "_AT_ONCE", 5)
        first = client.get("/jobs?limit=3&workload=fail").json()
        assert len(first["jobs"]) < 3
        assert (first["next"] is not None, first["total"]) == (True, None)
        assert pages(limit=3, workload="fail") == made[::10][::-1]


def test_retry_makes_a_new_job_of_the_same(client: TestClient) -> None:
    task_id = submit(client, "fail", {"a": 1}, priority=3, tags=["x"])
    ended(client, task_id)
    answer = client.post(f"/retry/{task_id}")
    assert answer.status_code == 202
    again = answer.json()
    assert again["retry_of"] == task_id
    assert answer.headers["location"] == f"/status/{again['task_id']}"
    told = ended(client, again["task_id"])
    assert (told["retry_of"], told["priority"], told["tags"]) == (task_id, 3, ["x"])
    done = submit(client, "echo", 5)
    ended(client, done)
    again = client.post(f"/retry/{done}").json()["task_id"]
    told = ended(client, again)
    assert (told["result"], told["cached"]) == (5, False)


@pytest.mark.parametrize("tags", [["a"] * 21, ["x" * 65], [""], "a", [1], ["a\nb"]])
def test_tags_that_cannot_be(client: TestClient, tags: Any) -> None:
    body = {"workload": "echo", "params": 1, "tags": tags}
    assert client.post("/submit", json=body).status_code == 422


def test_workloads_have_schemas(client: TestClient) -> None:
    found = {each["name"]: each for each in client.get("/workloads").json()["workloads"]}
    assert {"map_reduce", "matmul", "describe", "word_count", "group_by"} <= set(found)
    assert found["echo"]["schema"] is None
    schema = found["group_by"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"data": [], "by": ["a"], "aggregations": {}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"data": [], "by": []}, schema)
    assert "one for each group" not in found["group_by"]["description"]
    assert found["group_by"]["description"]


def test_what_may_be_done_at_an_address_is_told(client: TestClient) -> None:
    answer = client.options("/data/a.npy")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, PUT")
    assert client.get("/submit").headers["allow"] == "POST"


def test_the_schema_of_bodies_has_a_form_for_each_workload(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/submit"]["post"]["requestBody"]["content"]["application/json"]
    schema = content["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "$ref" not in json.dumps(schema)
    jsonschema.validate(content["examples"]["workload"]["value"], schema)
    good = {"workload": "matmul", "params": {"a": {"ref": "a.npy"}, "b": [[1]]}, "tags": ["x"]}
    jsonschema.validate(good, schema)
    for bad in (
        {"workload": "nope", "params": 1},
        {"workload": "matmul", "params": {"a": [[1]]}},
        {"workload": "matmul", "params": {"a": [[1]], "b": {"ref": 5}}},
        {"workload": "echo"},
        good | {"more": 1},
        good | {"priority": "1"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
        assert client.post("/submit", json=bad).status_code == 422


def test_the_document_tells_of_tokens_limits_and_queries(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    queries = {each["name"]: each["schema"] for each in paths["/jobs"]["get"]["parameters"]}
    assert queries["tag"]["type"] == "array"
    assert queries["workload"]["type"] == "string"
    assert "null" not in json.dumps(list(queries.values()))
    body = paths["/submit"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    forms = {form["title"]: form["properties"] for form in body["oneOf"]}
    assert forms["echo"]["priority"]["maximum"] == 1_000_000
    assert forms["word_count"]["params"]["properties"]["most"]["minimum"] == 1
    with Master() as master:
        app = create_app(master, token="t")
        document = app.openapi()
        app.state.close()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    numbers = document["paths"]["/submit"]["post"]["requestBody"]["content"]["application/json"]
    data = next(form for form in numbers["schema"]["oneOf"] if form["title"] == "data")
    assert data["properties"]["data"]["anyOf"][0]["items"] == {"type": "number"}


def test_every_answer_that_the_document_tells_of_is_described(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            codes = set(route["responses"])
            assert {"401", "403", "429", "500"} <= codes, (path, method)
            for code, response in route["responses"].items():
                assert response["description"]
                if int(code) >= 400 and (path, code) != ("/readyz", "503"):
                    assert list(response["content"]) == ["application/problem+json"]
    error = document["paths"]["/jobs"]["get"]["responses"]["422"]["content"]
    schema = error["application/problem+json"]["schema"]
    jsonschema.validate(client.get("/jobs?limit=0").json(), schema)
    jsonschema.validate(schema["example"], schema)


# --- uploads ------------------------------------------------------------------------------


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def test_data_is_uploaded_listed_and_forgotten(client: TestClient) -> None:
    content = npy([1, 2, 3])
    digest = hashlib.sha256(content)
    header = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    answer = client.put("/data/a.npy", content=content, headers={"Content-Digest": header})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/data/a.npy"
    told = answer.json()
    assert (told["name"], told["format"], told["size"]) == ("a.npy", "npy", len(content))
    assert told["sha256"] == digest.hexdigest()
    assert client.get("/data/a.npy").json() == told
    assert told in client.get("/data").json()["data"]
    assert client.delete("/data/a.npy").status_code == 204
    assert client.get("/data/a.npy").status_code == 404
    assert client.delete("/data/a.npy").status_code == 404


@pytest.mark.parametrize(
    ("name", "content", "headers", "status"),
    [
        ("a.npy", b"nonsense", {}, 422),
        ("a.npy", b"", {}, 422),
        ("a.npy", npy(np.array([{}], dtype=object)), {}, 422),
        ("a.npy", npy(["x"]), {}, 422),
        ("a.parquet", npy([1]), {}, 422),
        ("a.arrow", b"ARROW1xx", {}, 422),
        ("a.txt", b"\xff\xff", {}, 422),
        ("a.exe", b"x", {}, 415),
        ("a", b"x", {"Content-Type": "application/json"}, 415),
        ("a.npy", npy([1]), {"Content-Digest": "sha-256=:AAAA:"}, 409),
        ("a.npy", npy([1]), {"Content-Digest": "md5=:AAAA:"}, 409),
        (
            "a.npy",
            npy([1]),
            {"Content-Digest": f"sha-256=:{base64.b64encode(b'x' * 32).decode()}:"},
            409,
        ),
        ("a.npy", npy([1]), {"Content-Encoding": "gzip"}, 415),
        (".hidden.npy", npy([1]), {}, 422),
        ("..%2fa.npy", npy([1]), {}, 404),
        ("a b.npy", npy([1]), {}, 422),
        ("x" * 200 + ".npy", npy([1]), {}, 422),
        ("a.npy", b"x" * 2_000_001, {}, 413),
    ],
)
def test_data_that_is_refused(
    client: TestClient, name: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    before = client.get("/data").json()
    answer = client.put(f"/data/{name}", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    chunks = (content[i : i + 100_000] for i in range(0, len(content), 100_000))
    assert client.put(f"/data/{name}", content=chunks, headers=headers).status_code == status
    assert client.get("/data").json() == before


def test_data_together_is_limited_and_replacing_frees(client: TestClient) -> None:
    content = npy(np.ones(230_000))
    for name in ("a.npy", "a.npy", "a.npy", "b.npy"):
        assert client.put(f"/data/{name}", content=content).status_code == 201
    assert client.put("/data/c.npy", content=content).status_code == 507
    client.delete("/data/a.npy")
    client.delete("/data/b.npy")
    assert client.put("/data/c.npy", content=content).status_code == 201
    client.delete("/data/c.npy")


def test_one_users_data_is_not_anothers(tmp_path: Path) -> None:
    shelf = DataShelf(tmp_path / "data")
    draft = tmp_path / "draft"
    draft.write_bytes(npy([1]))
    (tmp_path / "data").mkdir(exist_ok=True)
    from agentic_ray.master.named.uploads import owner_folder

    owner_folder(shelf.folder, "alice").mkdir()
    shelf.keep("alice", "a.npy", draft, "npy", "0" * 64)
    assert [entry.name for entry in shelf.entries("alice")] == ["a.npy"]
    assert shelf.entries("bob") == []
    with pytest.raises(RequestError):
        shelf.entry("bob", "a.npy")


def test_what_a_killed_process_left_of_uploads_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "alice"
    folder.mkdir(parents=True)
    (tmp_path / "data").chmod(0o700)
    left, under_way = folder / ".left.tmp", folder / ".under-way.tmp"
    for draft in (left, under_way):
        draft.write_bytes(b"a")
    day_ago = time.time() - 86400
    os.utime(left, (day_ago, day_ago))
    with contextlib.closing(DataShelf(tmp_path / "data")):
        assert [path.name for path in folder.iterdir()] == [".under-way.tmp"]


def test_a_reference_cannot_be_forged(client: TestClient) -> None:
    forged = {"ref": "a", "format": "npy", "sha256": "../../etc/passwd", "owner": "x"}
    body = {"workload": "sum_of_squares", "params": {"data": forged}}
    assert client.post("/submit", json=body).status_code == 422
    body = {"workload": "sum_of_squares", "params": {"data": forged | {"sha256": "0" * 64}}}
    assert client.post("/submit", json=body).status_code == 422
    nested = {"arrays": {"x": forged | {"sha256": "0" * 64}}, "expression": "x"}
    body = {"workload": "array_expression", "params": nested}
    assert client.post("/submit", json=body).status_code == 422
    body = {"workload": "describe", "params": {"data": {"ref": "unknown.npy"}}}
    answer = client.post("/submit", json=body)
    assert answer.status_code == 404
    assert json.loads(answer.text)["error"]["type"] == "UnknownData"


def test_expressions_of_unknown_functions_are_refused_at_once(client: TestClient) -> None:
    params = {"arrays": {"x": [1, 2]}, "expression": ["frobnicate", "x"]}
    body = {"workload": "array_expression", "params": params}
    answer = client.post("/submit", json=body)
    assert answer.status_code == 422
    told = answer.json()["error"]
    assert told["type"] == "InvalidParametersError"
    assert "there is no function 'frobnicate'" in told["message"]
