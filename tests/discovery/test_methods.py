"""The registry of methods, and the checking of settings."""

from typing import Any

import pytest

from foundling.discovery import METHODS, resolve_method
from foundling.types import FACETS, ParameterError


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_run_with_its_defaults(name: str) -> None:
    method, settings = resolve_method(name, {})
    assert method is METHODS[name]
    assert settings == method.defaults
    assert set(method.facets(**settings)) <= set(FACETS)
    assert method.description


def test_a_label_may_differ_from_its_method() -> None:
    method, settings = resolve_method("lost_queries", {"method": "lost", "facet": "queries"})
    assert method.name == "lost"
    assert settings == {"k": 100, "facet": "queries", "seed_similarity": "facet", "expansion": "facet", "centre": False}


@pytest.mark.parametrize(
    ("label", "given", "message"),
    [
        ("found", {}, "unknown method 'found' .*: choose one of lost, tokencut, dino_seg, "),
        ("lost", {"method": "loss"}, r"unknown method 'loss' \(for 'lost'\)"),
        ("mine", {"method": "lost", "tau": 0.2}, "mine: method lost has no setting 'tau'; its settings are: k, facet"),
        ("whole_image", {"side": 1}, "whole_image has no setting 'side'; its settings are: none"),
        ("lost", {"k": "many"}, "k is 'many'"),
    ],
)
def test_errors_name_the_legal_methods_and_settings(label: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        resolve_method(label, given)
