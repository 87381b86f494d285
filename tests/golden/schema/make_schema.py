#!/usr/bin/env python3
"""Makes schema.json: JSON schemas, texts, and what the Python package jsonschema says of each.

    python3 make_schema.py                writes schema.json (needs jsonschema)
    python3 make_schema.py --check FILE   validates what test_schema generated (TS_SCHEMA_OUT=FILE)

Only texts that the grammar is meant to make otherwise than the package judges carry "ours", and why:
the grammar may leave out what a schema accepts, but it may not make what the schema refuses, except
where `oneOf` has several branches that fit.
"""
import json
import os
import re
import sys

import jsonschema

HERE = os.path.dirname(os.path.abspath(__file__))


class But:
    """A value of which the grammar thinks otherwise."""

    def __init__(self, value, why):
        self.value, self.why = value, why


class Text:
    """A text that is no plain dump of a value."""

    def __init__(self, text):
        self.text = text


ORDER = "properties come in the schema's order"
CLOSED = "a schema with properties and no word on others has no others"
ONE = "oneOf is taken as anyOf"
FORM = "numbers are written in one form"

person = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"},
          "mail": {"type": "string"}}, "required": ["name", "age"], "additionalProperties": False}

CASES = [
    ({"type": "object"}, [{}, {"a": 1}, {"a": {"b": [1, 2.5, None, True, "x\n\"\\"]}}, [], 1, "x", None]),
    ({}, [{}, [], 1, -1.5e10, "x", None, True, [[[[]]]], {"": ""}]),
    (True, [{"a": [1]}, 3]),
    ({"type": "string"}, ["", "abc", "\u00e9\u4e2d\U0001f600", "\t\"\\/", 1, None, Text('"\\u00e9\\ud83d\\ude00"'),
                          Text('"\\/"')]),
    ({"type": "integer"}, [0, 1, -1, 123456789012345, 1.5, "1", True, But(Text("1.0"), FORM)]),
    ({"type": "number"}, [0, 1.5, -2.25, 1e10, 1e-7, "1", None, Text("1E+5"), Text("0.5e-3")]),
    ({"type": "boolean"}, [True, False, 0, None, "true"]),
    ({"type": "null"}, [None, False, 0, ""]),
    ({"type": ["string", "null"]}, ["a", None, 1, []]),
    ({"type": ["integer", "boolean", "array"]}, [1, True, [1, "x"], "x", {}]),
    (person, [{"name": "A", "age": 3}, {"name": "A", "age": 3, "mail": "x"}, {"name": "A"}, {"age": 3}, {},
              {"name": 1, "age": 3}, {"name": "A", "age": 3, "x": 1}, But({"age": 3, "name": "A"}, ORDER), []]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"},
      "c": {"type": "integer"}}},
     [{}, {"a": 1}, {"b": 1}, {"c": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 2}, {"b": 1, "c": 2},
      {"a": 1, "b": 2, "c": 3}, {"a": "1"}, {"b": 1, "c": None}, But({"d": 1}, CLOSED), But({"c": 1, "a": 1}, ORDER)]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"},
      "d": {"type": "integer"}}, "required": ["b", "d"]},
     [{"b": 1, "d": 1}, {"a": 1, "b": 1, "d": 1}, {"b": 1, "c": 2, "d": 1}, {"a": 1, "b": 1, "c": 1, "d": 1},
      {"a": 1, "d": 1}, {"b": 1}, {"b": 1, "c": 1}, {}]),
    ({"type": "object", "properties": {"ab": {"type": "null"}, "ac": {"type": "null"}, "\u00e9": {"type": "null"}},
      "additionalProperties": {"type": "integer"}},
     [{}, {"ab": None}, {"x": 1}, {"ab": None, "abc": 2, "a": 3, "": 4}, {"ab": 1}, {"x": None}, {"ac": None, "ad": 1},
      {"\u00e9": None}, {"\u00e9": 1}, {"\u00e9a": 1, "\u4e2d": 2}]),
    ({"type": "object", "additionalProperties": {"type": "boolean"}}, [{}, {"a": True, "b": False}, {"a": 1}]),
    ({"type": "object", "additionalProperties": False}, [{}, {"a": 1}, []]),
    ({"type": "object", "required": ["x"]}, [{"x": 1}, {"x": [], "y": 2}, {}, {"y": 1}]),
    ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"], "additionalProperties": True},
     [{"a": "", "b": 1}, {"a": "", "b": {}, "c": 1}, {"a": ""}, {"b": 1}]),
    ({"type": "object", "properties": {"a\"b": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
     [{"a\"b": 1}, {"a\"b": "x"}, {"ab": "x"}, {"ab": 1}, {"": "x"}]),
    ({"type": "object", "properties": {"a\"b\\\n": {"type": "integer"}}}, [{"a\"b\\\n": 1}, {"a\"b\\\n": "x"}]),
    ({"type": "object", "properties": {"gone": False, "here": True}}, [{"here": 1}, {}, {"gone": 1}]),
    ({"type": "array"}, [[], [1, "a", None], {}, "x"]),
    ({"type": "array", "items": {"type": "integer"}}, [[], [1], [1, 2, 3], ["x"], [1, None]]),
    ({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
     [[], ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], [1]]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 2}, [[], [None], [None] * 2, [None] * 5]),
    ({"type": "array", "maxItems": 0}, [[], [1]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
     [[], [1], [1, "a"], [1, "a", 2], ["a"]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": {"type": "null"},
      "minItems": 1, "maxItems": 4},
     [[], [1], [1, "a"], [1, "a", None], [1, "a", None, None], [1, "a", None, None, None], [1, "a", 2]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2},
     [[1], [1, "a"], [1, "a", {}, []], [1, 2]]),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
      "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False},
     [[], [1], [1, "a"], [1, "a", 2], ["a"]]),
    ({"type": "string", "minLength": 2, "maxLength": 4},
     ["", "a", "ab", "abcd", "abcde", "\U0001f600\U0001f600", "\U0001f600", "\n\t", Text('"\\ud83d\\ude00a"'),
      Text('"\\ud83d\\ude00"')]),
    ({"type": "string", "maxLength": 0}, ["", "a"]),
    ({"type": "string", "minLength": 3}, ["ab", "abc", "abcdefghij"]),
    ({"type": "string", "pattern": "^[a-z]{2,4}$"}, ["a", "ab", "abcd", "abcde", "aB", ""]),
    ({"type": "string", "pattern": "b+"}, ["", "b", "abba", "aa", "\nb\""]),
    ({"type": "string", "pattern": "^a"}, ["a", "ab\"", "ba", ""]),
    ({"type": "string", "pattern": "z$"}, ["z", "xyz", "zx"]),
    ({"type": "string", "pattern": "^(foo|ba[rz])-\\d{3}(\\.x)?$|^$"},
     ["foo-123", "bar-000.x", "baz-999", "bax-123", "foo-12", "", "foo-123."]),
    ({"type": "string", "pattern": "^[^\"\\\\a]+\\\\?\"?$"}, ["b", "bc\\", "b\"", "b\\\"", "a", "\n", "", "b\"\""]),
    ({"type": "string", "pattern": "^\\w+\\s\\S\\W\\D.\\x41\\u00e9$"}, ["ab x!y.A\u00e9", "ab x!1.A\u00e9", "ab  !y.A\u00e9"]),
    ({"type": "string", "pattern": "^(?:a|(?<n>b)){2,}?c*$", }, []),
    ({"type": "string", "pattern": "^[\\d.,+-]{1,3}$", "maxLength": 3}, ["1.,", "+-", "a", "1111"]),
    ({"type": "string", "pattern": "^[a-c]{2}$", "minLength": 1, "maxLength": 5}, ["ab", "a", "abc"]),
    ({"type": "string", "format": "date"}, ["2024-02-29", "2023-02-29", "1999-12-31", "2000-13-01", "2000-04-31",
                                           "2000-1-1", "x", "2100-02-29", "2000-02-29", 5]),
    ({"type": "string", "format": "ipv4"}, ["1.2.3.4", "255.255.255.255", "256.1.1.1", "1.2.3", "01.2.3.4"]),
    ({"type": "string", "format": "ipv6"}, ["1:2:3:4:5:6:7:8", "::", "fe80::1", "a:b:c::d:e:f", "1:2", ":::", "g::",
                                           But("1:2:3:4::8", "of :: at most three groups on each side")]),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000", "123e4567", "123e4567-e89b-12d3-a456-42661417400g"]),
    ({"type": "string", "format": "email"}, ["a@b.com", "first.last@sub.example.org", "no", But("a@b", "a name with a dot")]),
    ({"type": "string", "format": "date-time"}, ["2024-02-29T12:00:00Z", "2024-02-29T23:59:59.123+02:00"]),
    ({"type": "string", "format": "time"}, ["12:00:00Z", "23:59:59.5-08:30"]),
    ({"type": "string", "format": "duration"}, ["P1D", "PT5M3S", "P1Y2M3D", "P3W"]),
    ({"type": "string", "format": "hostname"}, ["example.com", "a", "a-b.c1"]),
    ({"type": "integer", "minimum": 0}, [0, 1, 99999, -1, 1.5]),
    ({"type": "integer", "minimum": 23, "maximum": 587}, [22, 23, 29, 30, 99, 100, 499, 500, 579, 587, 588, 1000, -23]),
    ({"type": "integer", "minimum": -120, "maximum": 7}, [-121, -120, -99, -5, 0, 7, 8, 10]),
    ({"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 3}, [-3, -2, 0, 2, 3]),
    ({"type": "integer", "maximum": -10}, [-9, -10, -11, -123456, 0, 10]),
    ({"type": "integer", "minimum": 1.5, "maximum": 3.5}, [1, 2, 3, 4]),
    ({"type": "integer", "minimum": 9223372036854775800}, [9223372036854775799, 9223372036854775800, 9223372036854775807]),
    ({"type": "number", "minimum": 0, "maximum": 1}, [0, 1, 0.5, 0.99, 1.01, -0.1, But(1e-3 * 1e-6, FORM)]),
    ({"type": "number", "exclusiveMinimum": 0}, [0, 0.001, 1, 5.5, -1, Text("0.0")]),
    ({"type": "number", "exclusiveMinimum": -1.25, "exclusiveMaximum": 3.5},
     [-1.25, -1.24, -1.2, -1, -0.5, 0, 3, 3.4999, 3.5, 3.51, -1.3, 4]),
    ({"type": "number", "minimum": 0.05, "exclusiveMaximum": 0.3}, [0.05, 0.04, 0.3, 0.299, 0.1, 1, 0]),
    ({"type": "number", "minimum": 10.25, "maximum": 10.75}, [10.25, 10.24, 10.75, 10.76, 10.5, 10, 11]),
    ({"type": "number", "maximum": -2.5}, [-2.5, -2.49, -3, -2.51, 2.5, 0]),
    ({"$schema": "http://json-schema.org/draft-04/schema#", "type": "number", "minimum": 1, "exclusiveMinimum": True},
     [1, 1.5, 2, 0]),
    ({"minimum": 5}, [5, 6.5, 4, But("x", "without type, the type that the keywords are about")]),
    ({"enum": ["red", "green", 1, None, 1.5, {"a": [1, {}]}, [], True]},
     ["red", "green", 1, None, 1.5, {"a": [1, {}]}, [], True, "blue", 2, {}, False, {"a": [1]}]),
    ({"type": "string", "enum": ["a", "bb", "ccc", 5], "minLength": 2}, ["a", "bb", "ccc", 5]),
    ({"const": "x\"y"}, ["x\"y", "x"]),
    ({"const": {"a": 0.1}}, [{"a": 0.1}, {"a": 0.2}]),
    ({"type": "integer", "enum": [1, 2, 3], "minimum": 2}, [1, 2, 3]),
    ({"enum": [9007199254740992, 9007199254740993], "maximum": 9007199254740992}, [9007199254740992, 9007199254740993]),
    ({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]}, ["a", 5, 4, None]),
    ({"oneOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]}, ["ab", None, "abc", 1]),
    ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 0}]}, [-1, 1.5, But(3, ONE), -1.5]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
      "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {}]),
    ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "string"}}, "required": ["b"]}]},
     [{"a": 1, "b": "x"}, {"a": 1}, {"b": "x"}, {"a": "x", "b": "x"}]),
    ({"allOf": [{"type": "integer", "minimum": 3, "maximum": 20}, {"type": "number", "minimum": 5}, {"maximum": 9}]},
     [4, 5, 9, 10, 7.5]),
    ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
                {"properties": {"a": {"minimum": 5}, "b": {"type": "string"}}}]},
     [{"a": 5}, {"a": 4}, {}, {"a": 5, "b": "x"}, {"b": "x"}]),
    ({"allOf": [{"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "integer"}, {"type": "null"}]}]},
     [1, "a", None]),
    ({"allOf": [{"enum": [1, 2, 3, "a"]}, {"enum": [2, "a", 5]}, {"type": "integer"}]}, [1, 2, "a", 5]),
    ({"$defs": {"n": {"type": "integer", "minimum": 0}}, "type": "array", "items": {"$ref": "#/$defs/n"}},
     [[], [0, 5], [-1]]),
    ({"definitions": {"a/b": {"~c d": {"type": "null"}}}, "type": "object",
      "properties": {"x": {"$ref": "#/definitions/a~1b/~0c%20d"}}}, [{"x": None}, {"x": 1}]),
    ({"$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer"},
      "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "required": ["v"], "additionalProperties": False}},
      "$ref": "#/$defs/tree"},
     [{"v": 1}, {"v": 1, "kids": []}, {"v": 1, "kids": [{"v": 2, "kids": [{"v": 3}]}]}, {"v": 1, "kids": [{}]}, {}]),
    ({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
     [{"next": None}, {"next": {"next": None}}, {"next": {}}, {}]),
    ({"$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
      "$ref": "#/$defs/base", "properties": {"name": {"type": "string"}}, "required": ["name"]},
     [{"id": 1, "name": "x"}, {"id": 1}, {"name": "x"}]),
    ({"type": "object", "properties": {"kind": {"const": "a"}, "v": {"$ref": "#/properties/w"}, "w": {"type": "boolean"}}},
     [{"kind": "a", "v": True, "w": False}, {"v": 1}, {"kind": "b"}]),
    ({"title": "T", "description": "d", "default": 1, "examples": [1], "$comment": "c", "x-more": 1, "deprecated": True,
      "type": "integer", "readOnly": True}, [1, "a"]),
    ({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "object", "properties":
      {"k": {"enum": ["x", "y"]}, "n": {"type": ["number", "null"]}}, "required": ["k", "n"], "additionalProperties": False},
      "minItems": 1}, "o": {"type": "object", "properties": {}, "additionalProperties": False}}, "required": ["l"],
      "additionalProperties": False},
     [{"l": [{"k": "x", "n": None}]}, {"l": [{"k": "y", "n": 1.5}, {"k": "x", "n": -3}], "o": {}}, {"l": []},
      {"l": [{"k": "z", "n": 1}]}, {"l": [{"k": "x"}]}, {"o": {}}, {"l": [{"k": "x", "n": 1}], "o": {"a": 1}}]),
    ({"anyOf": [{"type": "object", "properties": {"t": {"const": "c"}, "r": {"type": "number"}}, "required": ["t", "r"]},
                {"type": "object", "properties": {"t": {"const": "s"}, "a": {"type": "number"}}, "required": ["t", "a"]}]},
     [{"t": "c", "r": 1}, {"t": "s", "a": 2}, {"t": "c", "a": 1}, {"t": "x"}]),
]


def validator(schema):
    cls = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    return cls(schema, format_checker=cls.FORMAT_CHECKER)


def texts(value):
    if isinstance(value, Text):
        return [value.text]
    out = [json.dumps(value, ensure_ascii=False), json.dumps(value, ensure_ascii=False, separators=(",", ":")),
           json.dumps(value, ensure_ascii=False, indent=2)]
    return sorted(set(out), key=out.index)


def make():
    out = []
    for schema, values in CASES:
        v = validator(schema)
        tests = []
        for value in values:
            but = value if isinstance(value, But) else None
            value = but.value if but else value
            for text in texts(value):
                valid = v.is_valid(json.loads(text))
                t = {"text": text, "valid": valid}
                if but:
                    t.update(ours=not valid, why=but.why)
                tests.append(t)
        out.append({"schema": schema, "tests": tests})
    with open(os.path.join(HERE, "schema.json"), "w", encoding="utf-8") as f:
        f.write("[\n")
        for i, case in enumerate(out):
            f.write('{"schema": %s,\n "tests": [\n' % json.dumps(case["schema"], ensure_ascii=False))
            f.write(",\n".join("  " + json.dumps(t, ensure_ascii=False) for t in case["tests"]))
            f.write("\n ]}%s\n" % ("," if i + 1 < len(out) else ""))
        f.write("]\n")
    print(f"{len(out)} schemas, {sum(len(c['tests']) for c in out)} texts")


def check(path):
    """Lines of: number of the case, tab, JSON."""
    n = bad = 0
    for line in open(path, encoding="utf-8"):
        i, text = line.rstrip("\n").split("\t", 1)
        schema = CASES[int(i)][0]
        n += 1
        try:
            valid = validator(schema).is_valid(json.loads(text))
        except re.error:  # a pattern that is ECMAScript's alone
            valid = True
        if not valid and "oneOf" not in schema:
            bad += 1
            print("invalid:", json.dumps(schema), text)
    print(f"{n} texts, {bad} invalid")
    return bad > 0


if __name__ == "__main__":
    sys.exit(check(sys.argv[2]) if sys.argv[1:2] == ["--check"] else make())
