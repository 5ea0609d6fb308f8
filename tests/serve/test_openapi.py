"""Generated requests against the OpenAPI document that the server shows."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from serving import serving
from tiny import LIGHTNING_NOISE

pytestmark = [pytest.mark.filterwarnings(noise) for noise in LIGHTNING_NOISE]

EXAMPLES = 40
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.ignored_auth,
]
"""Without positive_data_acceptance: that all lists of a request agree in length is nothing a schema can say."""


@pytest.fixture(scope="module")
def served(classifier, tmp_path_factory):
    with serving(classifier, dir=str(tmp_path_factory.mktemp("runs")), token="t0ken") as one:
        yield one


@pytest.fixture(scope="module")
def schema(served):
    known = {"Authorization": "Bearer t0ken"}
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json", headers=known)


@pytest.mark.parametrize(
    ("path", "mode"),
    [("/predict", GenerationMode.NEGATIVE)]
    + [
        (path, GenerationMode.POSITIVE)
        for path in ("/predict", "/model", "/live", "/ready", "/health", "/metrics")
    ],
)
def test_nothing_generated_finds_a_fault(schema, served, path, mode):
    (operation,) = schema[path].values()
    statuses = set()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case):
        response = case.call(headers={"Authorization": "Bearer t0ken"}, base_url=served.url)
        case.validate_response(response, checks=CHECKS, headers={"Authorization": "Bearer t0ken"})
        statuses.add(response.status_code)

    attempt()
    if path == "/predict":
        assert statuses >= ({200, 422} if mode is GenerationMode.POSITIVE else {422})
    else:
        assert statuses <= {200, 503}


def test_the_document_is_complete(served):
    document = served.client.get("/openapi.json", headers={"authorization": "Bearer t0ken"}).json()
    assert set(document["paths"]) == {"/predict", "/model", "/live", "/ready", "/health", "/metrics"}
    assert set(document["paths"]["/predict"]["post"]["responses"]) == {
        *("200", "400", "401", "408", "413", "415", "422", "429", "500")
    }
    assert document["paths"]["/predict"]["post"]["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/live"]["get"]
    values = document["components"]["schemas"]["PredictRequest"]["properties"]["values"]
    assert (values["maxItems"], values["items"]["maxItems"]) == (256, 10_000)
    assert values["items"]["items"]["minItems"] == values["items"]["items"]["maxItems"] == 1
