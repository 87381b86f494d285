#!/usr/bin/env python3
"""tessera serve: every endpoint and field, streams, tools, errors in OpenAI's shape."""
import base64
import json
import math
import os
import re
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli_tool import Folder, check, done  # noqa: E402
from serve_tool import HERMES, MESSAGES, Server  # noqa: E402



def text_of(r):
    return r.json["choices"][0]["message"]["content"]


# --- what works ---------------------------------------------------------------------------------------------------

def information(s, tiny):
    check(s.get("/health").json == {"status": "ok"}, "/health")
    models = s.get("/v1/models").json
    check(models["object"] == "list" and [m["id"] for m in models["data"]] == ["tiny", "other"], models)
    check(s.get("/v1/models/other").json["id"] == "other", "/v1/models/other")
    r = s.get("/v1/models/nope")
    check(r.status == 404 and r.error.get("code") == "model_not_found", r)
    props = s.get("/props").json
    check(props["total_slots"] == 4 and props["n_ctx"] == 2048 and "<|start_header" in props["chat_template"], props)
    check(tiny not in json.dumps(props), "/props tells where the model lies")
    plan = s.get("/plan").json
    check(isinstance(plan, dict) and plan, "/plan")
    r = s.get("/metrics")
    check(r.headers["content-type"].startswith("text/plain; version=0.0.4"), r.headers)
    for line in r.body.decode().splitlines():
        check(re.fullmatch(r"# (HELP|TYPE) tessera_\w+ .*|tessera_\w+(\{[^}]*\})? [-+.0-9eInf]+", line), line)
    check(s.metric("slots") == 4 and s.metric("queue_limit") == 64, "slots")
    r = s.request("HEAD", "/health")
    check(r.status == 200 and r.body == b"" and r.headers["content-length"] == "15", r.headers)
    for path in ("/v1/chat/completions", "/health"):
        r = s.request("OPTIONS", path)
        check(r.status == 204 and "OPTIONS" in r.headers["allow"], r, r.headers)
        check(not any(h.startswith("access-control") for h in r.headers), "CORS unasked for:", r.headers)


def tokens(s):
    for text in ("Hello there", "naïve 東京 🦆", "", "<|end_of_text|>"):
        ids = s.post("/tokenize", {"content": text}).json["tokens"]
        check(s.post("/detokenize", {"tokens": ids}).json == {"content": text}, text, ids)
    pieces = s.post("/tokenize", {"content": "é🦆", "with_pieces": True}).json["tokens"]
    got = b"".join(p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces)
    check(got == "é🦆".encode(), pieces)
    plain = s.post("/tokenize", {"content": "<|end_of_text|>", "parse_special": False}).json["tokens"]
    check(len(plain) > len(s.post("/tokenize", {"content": "<|end_of_text|>"}).json["tokens"]) == 1, plain)
    more = s.post("/tokenize", {"content": "a", "add_special": True}).json["tokens"]
    check(len(more) == 2, "BOS:", more)
    check(s.post("/detokenize", {"tokens": []}).json == {"content": ""}, "no tokens")


def chats(s):
    r = s.chat(max_tokens=12, temperature=0, ignore_eos=True)
    a = r.json
    check(r.status == 200 and r.headers["content-type"] == "application/json", r)
    check(a["object"] == "chat.completion" and a["model"] == "tiny" and a["id"].startswith("chatcmpl-"), a)
    check(r.headers["x-request-id"] == a["id"], r.headers)
    choice = a["choices"][0]
    check(choice["finish_reason"] == "length" and choice["message"]["role"] == "assistant", choice)
    u = a["usage"]
    check(u["completion_tokens"] == 12 and u["total_tokens"] == u["prompt_tokens"] + 12 and
          u["prompt_tokens_details"]["cached_tokens"] >= 0, u)
    check(a["timings"]["predicted_n"] == 12 and a["timings"]["predicted_per_second"] > 0, a["timings"])
    whole = text_of(r)
    # the same as a stream
    events = s.stream("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 12, "temperature": 0,
                                               "ignore_eos": True, "stream_options": {"include_usage": True}})
    first, usage, chunks = events[0], events[-1], events[:-1]
    check(first["object"] == "chat.completion.chunk" and first["choices"][0]["delta"] ==
          {"role": "assistant", "content": ""}, first)
    check(usage["choices"] == [] and usage["usage"]["completion_tokens"] == 12, usage)
    check(all(e["usage"] is None and e["id"] == first["id"] and len(e["choices"]) == 1 for e in chunks), chunks[:2])
    said = "".join(e["choices"][0]["delta"].get("content", "") for e in chunks)
    check(said == whole, "a stream says", said, "not", whole)
    check([e["choices"][0]["finish_reason"] for e in chunks][-2:] == [None, "length"], chunks[-2:])
    # without usage there is none
    events = s.stream("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 3, "ignore_eos": True})
    check(all("usage" not in e for e in events) and "timings" in events[-1], events[-1])
    check(s.chat(max_completion_tokens=5, ignore_eos=True).json["usage"]["completion_tokens"] == 5,
          "max_completion_tokens")
    check(s.chat(max_tokens=3, model="other").status == 200, "by another name")
    # parts of text, and what the template gets
    r = s.post("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
                                        "max_tokens": 12, "temperature": 0, "ignore_eos": True})
    check(text_of(r) == whole, "a content of parts:", r)


def sampling(s):
    fields = {"max_tokens": 8, "ignore_eos": True, "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0}
    one, again = (text_of(s.chat(seed=7, **fields)) for _ in range(2))
    other = text_of(s.chat(seed=8, **fields))
    check(one == again and one != other, "seeds:", one, again, other)
    check(text_of(s.chat(**fields)) != text_of(s.chat(**fields)), "no seed: another text each time")
    several = s.chat(n=3, seed=7, **fields).json
    texts = [c["message"]["content"] for c in several["choices"]]
    check([c["index"] for c in several["choices"]] == [0, 1, 2] and texts[0] == one and len(set(texts)) == 3, texts)
    check(several["usage"]["completion_tokens"] == 24, several["usage"])
    events = s.stream("/v1/chat/completions", {"messages": MESSAGES, "n": 3, "seed": 7, **fields})
    for i in range(3):
        mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == i]
        check("".join(c["delta"].get("content", "") for c in mine) == texts[i] and
              mine[0]["delta"].get("role") == "assistant" and mine[-1]["finish_reason"] == "length", mine)
    a = s.post("/tokenize", {"content": "a"}).json["tokens"][0]
    b = s.post("/tokenize", {"content": "b"}).json["tokens"][0]
    check(text_of(s.chat(max_tokens=5, temperature=0, logit_bias={str(a): 100})) == "aaaaa", "logit_bias")
    r = s.chat(max_tokens=5, temperature=0, logit_bias={str(a): 100, str(b): 90}, presence_penalty=2,
               frequency_penalty=2)
    check(text_of(r)[0] == "a" and r.status == 200, r)
    r = s.chat(max_tokens=9, temperature=0, logit_bias={str(a): 100}, stop=["aaa"])
    check(text_of(r) == "" and r.json["choices"][0]["finish_reason"] == "stop", r)
    r = s.chat(max_tokens=9, temperature=0, logit_bias={str(a): 100}, stop="zz")
    check(text_of(r) == "a" * 9 and r.json["choices"][0]["finish_reason"] == "length", r)


def probabilities(s):
    r = s.chat(max_tokens=4, temperature=0, ignore_eos=True, logprobs=True, top_logprobs=3)
    entries = r.json["choices"][0]["logprobs"]["content"]
    check(len(entries) == 4, r)
    for e in entries:
        top = e["top_logprobs"]
        check(len(top) == 3 and top[0]["logprob"] >= top[1]["logprob"] >= top[2]["logprob"] and e["logprob"] <= 0, e)
        check(top[0]["token"] == e["token"] and top[0]["logprob"] == e["logprob"], "greedy takes the best:", e)
        check(bytes(e["bytes"]).decode("utf-8", "replace") == e["token"], e)
    said = b"".join(bytes(e["bytes"]) for e in entries).decode("utf-8", "replace")
    check(said == text_of(r), said, r)
    events = s.stream("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4, "temperature": 0,
                                               "ignore_eos": True, "logprobs": True, "top_logprobs": 3})
    streamed = [x for e in events for x in (e["choices"][0]["logprobs"] or {"content": []})["content"]]
    check(streamed == entries, streamed, entries)
    check(s.chat(max_tokens=2).json["choices"][0]["logprobs"] is None, "logprobs unasked for")
    r = s.post("/v1/completions", {"prompt": "Hello", "max_tokens": 4, "temperature": 0, "logprobs": 2,
                                   "ignore_eos": True})
    p = r.json["choices"][0]["logprobs"]
    check([len(p[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [4] * 4, p)
    check(all(len(t) == 2 for t in p["top_logprobs"]) and p["text_offset"][0] == 0, p)


def completions(s):
    fields = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
    one = s.post("/v1/completions", {"prompt": "Hello", **fields}).json
    check(one["object"] == "text_completion" and one["choices"][0]["finish_reason"] == "length", one)
    text = one["choices"][0]["text"]
    ids = s.post("/tokenize", {"content": "Hello", "add_special": True}).json["tokens"]
    for prompt in (ids, ["Hello"], [ids]):
        r = s.post("/v1/completions", {"prompt": prompt, **fields}).json
        check(r["choices"][0]["text"] == text, prompt, r)
    many = s.post("/v1/completions", {"prompt": ["Hello", "Other", "Hello"], "n": 2, **fields}).json
    texts = [c["text"] for c in many["choices"]]
    check([c["index"] for c in many["choices"]] == list(range(6)) and texts[:2] == [text] * 2 == texts[4:] and
          texts[2] == texts[3] != text, texts)
    events = s.stream("/v1/completions", {"prompt": "Hello", **fields})
    check("".join(e["choices"][0]["text"] for e in events) == text and
          events[-1]["choices"][0]["finish_reason"] == "length" and "delta" not in events[0]["choices"][0], events)
    none = s.post("/v1/completions", {"prompt": "Hello", "max_tokens": 0}).json
    check(none["choices"][0]["text"] == "" and none["usage"]["completion_tokens"] == 0, none)
    # more of them than may wait at once
    many = s.post("/v1/completions", {"prompt": ["Hello"] * 100, "max_tokens": 1, "temperature": 0})
    check(many.status == 200 and len(many.json["choices"]) == 100, many)


def constrained(s):
    fields = {"max_tokens": 200}
    said = text_of(s.chat(grammar='root ::= "yes" | "no"', **fields))
    check(said in ("yes", "no"), said)
    said = text_of(s.chat(response_format={"type": "json_object"}, max_tokens=400, temperature=0,
                          grammar=None))
    try:
        check(isinstance(json.loads(said), dict), said)
    except ValueError:
        check(len(said) > 50, "json_object:", said)  # cut off by max_tokens
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}},
              "required": ["a", "b"], "additionalProperties": False}
    for form in ({"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}},
                 {"type": "json_object", "schema": schema}):
        r = s.chat(response_format=form, **fields)
        v = json.loads(text_of(r))
        check(isinstance(v["a"], bool) and v["b"] in "xy" and set(v) == {"a", "b"}, r)
        check(r.json["choices"][0]["finish_reason"] == "stop", r)
    check(json.loads(text_of(s.chat(json_schema=schema, **fields)))["b"] in "xy", "json_schema")
    check(s.chat(response_format={"type": "text"}, max_tokens=2).status == 200, "text")


def embeddings(s):
    r = s.post("/v1/embeddings", {"input": ["Hello", "Other"], "model": "tiny"}).json
    vectors = [d["embedding"] for d in r["data"]]
    check(r["object"] == "list" and [d["index"] for d in r["data"]] == [0, 1] and len(vectors[0]) == 256, str(r)[:200])
    check(r["usage"]["prompt_tokens"] == r["usage"]["total_tokens"] > 0, r["usage"])
    for v in vectors:
        check(abs(math.fsum(x * x for x in v) - 1) < 1e-5, "length", math.fsum(x * x for x in v))
    check(vectors[0] != vectors[1], "the same for two texts")
    coded = s.post("/v1/embeddings", {"input": "Hello", "encoding_format": "base64"}).json["data"][0]["embedding"]
    raw = struct.unpack("<256f", base64.b64decode(coded, validate=True))
    check(max(abs(a - b) for a, b in zip(raw, vectors[0])) < 1e-4, "base64 is another vector")
    ids = s.post("/tokenize", {"content": "Hello", "add_special": True}).json["tokens"]
    v = s.post("/v1/embeddings", {"input": [ids, ids]}).json["data"][1]["embedding"]
    check(max(abs(a - b) for a, b in zip(v, vectors[0])) < 1e-4, "of ids")
    many = s.post("/v1/embeddings", {"input": ["Hello"] * 90})
    check(many.status == 200 and len(many.json["data"]) == 90, many)
    check(s.post("/v1/embeddings", {"input": "a", "dimensions": 256}).status == 200, "dimensions")
    r = s.post("/v1/embeddings", {"input": "a", "dimensions": 100})
    check(r.status == 400 and r.error.get("param") == "dimensions", r)


def tools(folder, tiny):
    function = {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "celsius": {"type": "boolean"}},
        "required": ["city", "celsius"], "additionalProperties": False}}
    other = {"name": "other", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}
    offered = [{"type": "function", "function": function}, {"type": "function", "function": other}]
    named = {"type": "function", "function": {"name": "get_weather"}}
    with Server(tiny, "--chat-template-file", folder.file("hermes.jinja", HERMES), "--no-log") as s:
        for choice in ("required", named):
            r = s.chat(tools=offered, tool_choice=choice, max_tokens=900, parallel_tool_calls=False)
            choice0 = r.json["choices"][0]
            calls = choice0["message"].get("tool_calls", [])
            check(choice0["finish_reason"] == "tool_calls" and len(calls) == 1 and choice0["message"]["content"] is None
                  and calls[0]["type"] == "function" and calls[0]["id"].startswith("call_"), r)
            args = json.loads(calls[0]["function"]["arguments"])
            check(calls[0]["function"]["name"] in ("get_weather", "other") and isinstance(args, dict), r)
        check(calls[0]["function"]["name"] == "get_weather" and args["city"] in ("Paris", "Rome") and
              isinstance(args["celsius"], bool), "a named function:", r)
        events = s.stream("/v1/chat/completions", {"messages": MESSAGES, "tools": offered, "tool_choice": named,
                                                   "max_tokens": 900, "parallel_tool_calls": False})
        deltas = [d for e in events for d in e["choices"][0]["delta"].get("tool_calls", [])]
        first = deltas[0]
        check(first["index"] == 0 and first["type"] == "function" and first["function"] ==
              {"name": "get_weather", "arguments": ""} and first["id"].startswith("call_"), first)
        check(all(set(d) == {"index", "function"} and set(d["function"]) == {"arguments"} for d in deltas[1:]), deltas)
        check(json.loads("".join(d["function"]["arguments"] for d in deltas))["city"] in ("Paris", "Rome"), deltas)
        check(events[-1]["choices"][0]["finish_reason"] == "tool_calls", events[-1])
        check(s.chat(tools=offered, tool_choice="none", max_tokens=3).json["usage"]["prompt_tokens"] <
              s.chat(tools=offered, max_tokens=3).json["usage"]["prompt_tokens"], "tools not to be called are told")
        broken = [{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}]
        refuse(s, "/v1/chat/completions", {"messages": MESSAGES, "tools": broken, "tool_choice": "required"}, 400,
               "tools")
        r = s.post("/v1/chat/completions", {"tools": offered, "max_tokens": 2, "messages": [
            *MESSAGES, {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]})
        check(r.status == 200, "a tool's answer:", r)


# --- what doesn't -------------------------------------------------------------------------------------------------

def refuse(s, path, body, status, param="", *words, **kw):
    r = s.post(path, body, **kw)
    check(r.status == status and r.error, path, str(body)[:200], "->", r)
    if param:
        check(r.error.get("param") == param, path, str(body)[:200], "should name", param, "->", r)
    for w in words:
        check(w in r.error.get("message", ""), "should say", w, "->", r)
    return r


def bad_requests(s):
    chat, text = "/v1/chat/completions", "/v1/completions"
    ok = {"messages": MESSAGES, "max_tokens": 1}
    for body in ("", "{", '{"messages": [', '{"messages": [{"role": "user", "content": "x"}]', "nonsense", "null", "[]",
                 "5", '"x"', '{"messages": [{"role": "user", "content": "\\ud800"}]}', "{" * 60000, "[" * 60000,
                 '{"messages": ' + "[" * 60000 + "]" * 60000 + "}", b'{"messages": "\xff\xfe"}',
                 b'{"messages": [{"role": "user", "content": "\xc3"}]}'):
        refuse(s, chat, body, 400)
    check("JSON" in refuse(s, chat, '{"a": }', 400).error["message"], "what isn't JSON says so")
    wrong = {
        "messages": [None, [], {}, "x", 5, [5], [{}], [{"role": 5}], [{"role": "user", "content": 5}],
                     [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
                     [{"role": "user", "content": [{"type": "input_audio"}]}],
                     [{"role": "assistant", "tool_calls": 5}], [{"role": "assistant", "tool_calls": [{}]}]],
        "model": [5, [], {}, True],
        "stream": [1, "true", [], {}],
        "stream_options": [5, "x", [], {"include_usage": 5}],
        "max_tokens": [-1, -5, 1e300, 10**30, 2**31, 1.5, "5", [], {}, True],
        "max_completion_tokens": [-1, 10**30, "5", 0.5, True],
        "n": [0, -1, 129, 10**12, 1.5, "1", [], True],
        "temperature": [-0.1, 101, 1e300, "1", [], True],
        "top_p": [-0.1, 1.1, "1", []], "min_p": [-1, 2, "1"], "top_k": [-2, 2**31, 1.5, "1"],
        "presence_penalty": [-2.1, 2.1, "1"], "frequency_penalty": [-3, 3, "1"], "repeat_penalty": [0, -1, 101, "1"],
        "repeat_last_n": [-2, 2**31, "1"], "seed": [-2, 2**63, 1.5, "1", []],
        "stop": [5, [5], [""], "", {}, ["x"] * 65, ["\0"]],
        "logprobs": [1, "true", []], "top_logprobs": [-1, 21, 1.5, "1"],
        "logit_bias": [5, [], "x", {"a": 1}, {"-1": 1}, {"1": "x"}, {"1": 101}, {"1": -101}, {"99999999999": 1},
                       {"": 1}],
        "ignore_eos": [1, "x"],
        "response_format": [5, "json_object", [], {}, {"type": 5}, {"type": "xml"}, {"type": "json_schema"},
                            {"type": "json_schema", "json_schema": {"name": "x"}},
                            {"type": "json_schema", "json_schema": {"schema": 5}},
                            {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}},
                            {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}],
        "grammar": [5, [], "root ::= (", "nonsense", "root ::= root"],
        "tools": [5, "x", {}, [5], [{}], [{"type": "x"}], [{"type": "function"}],
                  [{"type": "function", "function": {"name": 5}}], [{"type": "function", "function": {"name": ""}}],
                  [{"type": "function", "function": {"name": "f", "parameters": 5}}]],
        "tool_choice": [5, "x", [], {}, {"type": "function"}, "required",
                        {"type": "function", "function": {"name": "f"}}],
        "parallel_tool_calls": [5, "x"],
        "chat_template_kwargs": [5, "x", []],
        "reasoning_effort": [5, []],
    }
    for name, values in wrong.items():
        for v in values:
            body = {**ok, name: v}
            if name == "parallel_tool_calls":
                body["tools"] = [{"type": "function", "function": {"name": "f"}}]
            param = name
            if name == "messages" and v is None:
                param = "messages"
            refuse(s, chat, body, 400, param)
    refuse(s, chat, {**ok, "top_logprobs": 2}, 400, "top_logprobs", "logprobs")
    refuse(s, chat, {**ok, "functions": []}, 400, "functions", "tools")
    refuse(s, chat, {**ok, "grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, 400, "grammar")
    refuse(s, chat, {**ok, "model": "nope"}, 404, "model", "nope")
    refuse(s, text, {"prompt": "x", "model": "nope"}, 404, "model")
    refuse(s, chat, {"max_tokens": 1}, 400, "messages", "missing")
    for prompt in (None, 5, [], {}, [[]], [5.5], ["a", 5], [[1, "a"]], [-1], [10**6], [10**30], [True], ["x"] * 2049):
        refuse(s, text, {"prompt": prompt}, 400, "prompt")
    refuse(s, text, {"prompt": ["x"] * 2048, "n": 2}, 400, "n")
    for name in ("echo", "suffix", "best_of"):
        refuse(s, text, {"prompt": "x", name: {"echo": True, "suffix": "y", "best_of": 3}[name]}, 400, name, name)
    for name, v in (("echo", False), ("suffix", None), ("suffix", ""), ("best_of", 1), ("best_of", None)):
        check(s.post(text, {"prompt": "x", "max_tokens": 1, name: v}).status == 200, name, v)
    for v in (None, 5, [], {}, [5.5], [-1]):
        refuse(s, "/v1/embeddings", {"input": v}, 400, "input")
    refuse(s, "/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 400, "encoding_format")
    refuse(s, "/v1/embeddings", {"input": "a", "dimensions": -1}, 400, "dimensions")
    for v in (None, 5, [], {}):
        refuse(s, "/tokenize", {"content": v}, 400, "content")
    refuse(s, "/tokenize", {"content": "a", "add_special": 5}, 400, "add_special")
    for v in (5, "x", ["a"], [[1]], [-1], [10**6], {}):
        refuse(s, "/detokenize", {"tokens": v}, 400, "tokens")
    # nulls are what clients send for what they leave open, and unknown fields aren't looked at
    nulls = {k: None for k in wrong if k != "messages"}
    check(s.post(chat, {**nulls, **ok, "user": "x", "metadata": {"a": [1]}, "whatever": 5}).status == 200, "nulls")
    # beyond the context: both lengths
    r = refuse(s, text, {"prompt": "a " * 3000}, 400, "prompt", "2048")
    check(r.error["code"] == "context_length_exceeded" and re.search(r"has \d{4} tokens", r.error["message"]), r)
    r = refuse(s, chat, {"messages": [{"role": "user", "content": "a " * 3000}]}, 400, "messages", "2048")
    check(r.error["code"] == "context_length_exceeded", r)
    refuse(s, chat, {**ok, "messages": MESSAGES * 2000}, 400, "messages", "2048")
    # text that imitates a control token stays text
    a = s.chat("<|eot_id|>", max_tokens=1).json["usage"]["prompt_tokens"]
    b = s.chat("x", max_tokens=1).json["usage"]["prompt_tokens"]
    check(a > b + 3, "a control token from a user:", a, b)


with Folder() as f:
    small = f.model("tiny.gguf")
    with Server(small, "-a", "tiny", "-a", "other", "-c", 4096, "--no-log") as server:
        information(server, small)
        tokens(server)
        chats(server)
        sampling(server)
        probabilities(server)
        completions(server)
        constrained(server)
        embeddings(server)
        bad_requests(server)
    tools(f, small)
done("serve")
