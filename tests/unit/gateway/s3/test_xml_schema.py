"""Schemas: what was written is read again as it was, and what is not the schema is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.s3 import configurations as conf
from gateway.s3.errors import S3Error
from gateway.s3.xml.read import parse
from gateway.s3.xml.schema import Field, Tree, any_text, read, true_or_false, whole_number, word, write

LEAF = (Field("Key", any_text, required=True), Field("Value", any_text))
SCHEMA = (
    Field("Word", word("A", "B")), Field("Number", whole_number), Field("Flag", true_or_false),
    Field("Text", any_text, many=True),
    Field("Inner", LEAF, required=True), Field("Many", LEAF, many=True), Field("Empty", ()),
)


def tree_of(document: str, fields: tuple[Field, ...] = SCHEMA) -> Tree:
    return read(parse(f"<Root>{document}</Root>".encode(), "Root", 1 << 20), fields)


def test_what_is_read_is_written_in_the_schema_s_order() -> None:
    sent = ("<Many><Value>2</Value><Key>1</Key></Many><Inner><Key>a&amp;b</Key></Inner> <Flag> True </Flag><Many><Key/></Many>"
            "<Number> 007 </Number><Word>B</Word><Text> x </Text><Text/><Empty></Empty>")
    assert write(tree_of(sent), SCHEMA) == (
        "<Word>B</Word><Number>7</Number><Flag>true</Flag><Text> x </Text><Text></Text><Inner><Key>a&amp;b</Key></Inner>"
        "<Many><Key>1</Key><Value>2</Value></Many><Many><Key></Key></Many><Empty></Empty>")


@pytest.mark.parametrize("document", [
    "", "<Inner/>", "<Inner>x</Inner>", "<Inner><Key/></Inner>text", "<Inner><Key/></Inner><Other/>", "<Inner><Key/></Inner>" * 2,
    "<Inner><Key><Key/></Key></Inner>", "<Inner><Key/></Inner><Word>b</Word>", "<Inner><Key/></Inner><Word> A</Word>",
    "<Inner><Key/></Inner><Number>x</Number>", "<Inner><Key/></Inner><Number>1.5</Number>", "<Inner><Key/></Inner><Flag>1</Flag>",
    "<Inner><Key/></Inner><Empty>x</Empty>", "<Inner><Key/><Key/></Inner>",
])
def test_what_is_not_the_schema_is_malformed(document: str) -> None:
    with pytest.raises(S3Error) as caught:
        tree_of(document)
    assert caught.value.code == "MalformedXML"


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=8)
"""What XML can hold."""


WORDS = ("A", "B", "Enabled", "Disabled", "Destination", "V_1", "CSV", "ORC", "Daily", "Weekly", "All", "Current", "ETag", "Size",
         "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS")


def trees(fields: tuple[Field, ...]) -> st.SearchStrategy[Tree]:
    def of(field: Field) -> st.SearchStrategy[Any]:
        if isinstance(field.content, tuple):
            one: st.SearchStrategy[Any] = trees(field.content)
        elif field.content is whole_number:
            one = st.integers(-(10**17), 10**17).map(str)
        elif field.content is true_or_false:
            one = st.sampled_from(["true", "false"])
        elif field.content is any_text:
            one = TEXT
        else:
            one = st.sampled_from(WORDS).filter(lambda text: taken(field, text))
        return st.lists(one, min_size=1, max_size=3) if field.many else one

    def taken(field: Field, text: str) -> bool:
        assert not isinstance(field.content, tuple)
        try:
            return field.content(text) == text
        except S3Error:
            return False

    return st.fixed_dictionaries(
        {field.name: of(field) for field in fields if field.required},
        optional={field.name: of(field) for field in fields if not field.required})


SHAPES = (conf.REPLICATION, conf.ANALYTICS.shape, conf.INVENTORY.shape, conf.METRICS.shape, conf.INTELLIGENT_TIERING.shape)


@pytest.mark.parametrize("fields", [SCHEMA, *(shape.fields for shape in SHAPES)], ids=lambda fields: fields[0].name)
def test_what_was_written_is_read_again(fields: tuple[Field, ...]) -> None:
    @settings(max_examples=20, deadline=None)
    @given(tree=trees(fields))
    def holds(tree: Tree) -> None:
        assert tree_of(write(tree, fields), fields) == tree

    holds()
