"""The page of data sets says what their files say."""

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from pellucid.io.collections import declared
from pellucid.io.collections.declared import collections, load_collection

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "collections.md").read_text(encoding="utf-8")


def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_datasets", ROOT / "docs" / "datasets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_names_every_data_set_with_its_terms() -> None:
    text = writer().text()
    for one in collections().values():
        assert f"### {one.name}\n" in text
        for said in (one.title, one.license, one.citation, one.source, one.layout.strip("\n")):
            assert said in text, (one.name, said)
    assert "{include} generated/collections.inc" in PAGE


def test_the_page_explains_every_key() -> None:
    kinds = [declared.Collection, declared.Where, declared.Table, declared.Fact, declared.Source]
    for kind in (*kinds, declared.Mask, declared.Box, declared.Outline):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in PAGE, f"{kind.__name__}.{field.name}"


def test_the_example_of_the_page_is_a_data_set(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(name = .*?)```", PAGE, re.DOTALL)
    (tmp_path / "ours.toml").write_text(example, encoding="utf-8")
    assert load_collection(tmp_path / "ours.toml").masks[0].reader == "anna"
