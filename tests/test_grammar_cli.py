#!/usr/bin/env python3
"""`tessera grammar`, and `tessera run` under grammars and JSON schemas."""
import json

from cli_tool import Folder, bad, check, done, good

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10},
          "n": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["name", "n"]}

with Folder() as d:
    gbnf = d.file("list.gbnf", 'root ::= ("- " [a-z]+ "\\n"){1,3}\n')
    schema = d.file("schema.json", json.dumps(SCHEMA))
    wrong = d.file("wrong.gbnf", 'root ::= "a"\nx ::= y\n')
    text = d.file("text", "- ab\n- c\n")

    # grammar: printed, checked, matched
    check(good("grammar", "--grammar-file", gbnf).out == open(gbnf).read(), "GBNF as it is")
    made = good("grammar", "-j", json.dumps(SCHEMA)).out
    check(made.startswith("root ::= ") and '"\\"name\\""' in made, made)
    check(good("grammar", "--grammar", made).out == made, "what is printed can be read")
    check(good("grammar", "--json-schema-file", schema).out == made, "a schema from a file")
    check(good("grammar", "--grammar-file", gbnf, "-f", text).out == "", "a text that matches")
    good("grammar", "--grammar-file", gbnf, "-f", "-", stdin=b"- x\n")
    good("grammar", "-j", '{"type": "integer", "minimum": 3}', "-p", "3")
    bad(["grammar", "--grammar-file", gbnf, "-p", "- a\n-b"], "byte 6 (0x62) can't stand there")
    bad(["grammar", "--grammar-file", gbnf, "-p", "- a"], "it can't end after its 3 bytes")
    bad(["grammar", "--grammar-file", wrong], "line 2, column 7: there is no rule 'y'")
    bad(["grammar", "-j", '{"tpye": 1}'], 'the keyword "tpye" isn\'t known')
    bad(["grammar", "-j", "{"], "isn't JSON")
    bad(["grammar"], "a grammar is missing")
    bad(["grammar", "--grammar", "x", "-j", "{}"], "exclude each other")
    bad(["grammar", "--grammar-file", gbnf, "-p", "a", "-f", text], "given twice")
    bad(["grammar", "--grammar-file", gbnf + "x"], "list.gbnfx")

    # run
    model = d.model("m.gguf")
    common = ["run", "-m", model, "-p", "a", "--no-display-prompt", "-t", 1, "--temp", 1.5]
    texts = set()
    for seed in range(8):
        r = good(*common, "-n", 300, "-s", seed, "-j", json.dumps(SCHEMA))
        v = json.loads(r.out)
        check(list(v) == ["name", "n"] and len(v["name"]) <= 10 and 1 <= v["n"] <= 99, r.out)
        texts.add(r.out)
    check(len(texts) > 4, "texts differ", texts)
    r = good(*common, "-n", 300, "-s", 1, "-jf", schema)
    check(r.out in texts and "grammar" not in r.err, r)
    r = good(*common, "-n", 100, "-s", 1, "--grammar-file", gbnf)
    good("grammar", "--grammar-file", gbnf, "-p", r.out[:-1] if r.out.endswith("\n\n") else r.out)
    check(good(*common, "-n", 20, "--grammar", 'root ::= "yes" | "yes"').out == "yes\n", "yes")
    check(good(*common, "-n", 20, "--ignore-eos", "--grammar", 'root ::= "yes" "!"?').out in ("yes!\n",),
          "without an end the text goes on as far as it may")
    r = good(*common, "-n", 2, "--grammar", 'root ::= "0123456789abcdefghijklmnop"{9}')
    check("ends before the grammar says that it is complete" in r.err, r)
    bad([*common, "--grammar-file", wrong], "line 2, column 7: there is no rule 'y'")
    bad([*common, "-j", '{"not": {}}'], 'the keyword "not" isn\'t supported')
    bad([*common, "-j", "{}", "-jf", schema], "exclude each other")

done("grammar_cli")
