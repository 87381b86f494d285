#!/usr/bin/env python3
"""tessera serve: every endpoint, streams, errors in OpenAI's shape, what strangers may send, keys, signals, logs."""
import base64
import json
import math
import os
import re
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli_tool import Folder, bad, check, done, good  # noqa: E402
from serve_tool import HERMES, Server, head_of, read_all  # noqa: E402

LONG = {"n": 128, "max_tokens": 1900, "ignore_eos": True}  # minutes, with --isa ref
SLOW = ("--isa", "ref", "-t", 1)
MESSAGES = [{"role": "user", "content": "Hello"}]


def text_of(r):
    return r.json["choices"][0]["message"]["content"]


# --- what works -----------------------------------------------------------------------------------------------------

def information(s, tiny):
    check(s.get("/health").json == {"status": "ok"}, "/health")
    models = s.get("/v1/models").json
    check(models["object"] == "list" and [m["id"] for m in models["data"]] == ["tiny", "other"], models)
    check(s.get("/v1/models/other").json["id"] == "other", "/v1/models/other")
    r = s.get("/v1/models/nope")
    check(r.status == 404 and r.error.get("code") == "model_not_found", r)
    props = s.get("/props").json
    check(props["total_slots"] == 4 and props["n_ctx"] == 2048 and "<|start_header_id|>" in props["chat_template"], props)
    check(tiny not in json.dumps(props), "/props tells where the model lies")
    plan = s.get("/plan").json
    check(isinstance(plan, dict) and plan, "/plan")
    r = s.get("/metrics")
    check(r.headers["content-type"].startswith("text/plain; version=0.0.4"), r.headers)
    for line in r.body.decode().splitlines():
        check(re.fullmatch(r"# (HELP|TYPE) tessera_\w+ .*|tessera_\w+(\{[^}]*\})? [-+.0-9eInf]+", line), "metric:", line)
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
    offered = [{"type": "function", "function": function}, {"type": "function", "function": {"name": "other", "parameters": {
        "type": "object", "properties": {}, "additionalProperties": False}}}]
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
              s.chat(tools=offered, max_tokens=3).json["usage"]["prompt_tokens"], "tools that may not be called are told")
        broken = [{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}]
        refuse(s, "/v1/chat/completions", {"messages": MESSAGES, "tools": broken, "tool_choice": "required"}, 400, "tools")
        r = s.post("/v1/chat/completions", {"tools": offered, "max_tokens": 2, "messages": [
            *MESSAGES, {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]})
        check(r.status == 200, "a tool's answer:", r)


# --- what doesn't -----------------------------------------------------------------------------------------------------

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
        "logit_bias": [5, [], "x", {"a": 1}, {"-1": 1}, {"1": "x"}, {"1": 101}, {"1": -101}, {"99999999999": 1}, {"": 1}],
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


def paths(s):
    for path in ("/nope", "/v1", "/v1/models/", "/../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd",
                 "//etc/passwd", "/index.html/../../x", "/page.c", "/%00", "/" + "a" * 2000):
        r = s.get(path)
        check(r.status == 404 and r.error.get("code") == "not_found", path, r)
        check(b"root:" not in r.body, path, "gives a file")
    for method, path in (("GET", "/v1/chat/completions"), ("PUT", "/v1/chat/completions"), ("DELETE", "/health"),
                         ("POST", "/health"), ("POST", "/v1/models"), ("PATCH", "/metrics")):
        r = s.request(method, path)
        check(r.status == 405 and r.error and "allow" in r.headers, method, path, r, r.headers)


def large(s):
    """More than the 100 KiB that this server takes."""
    body = b'{"messages": [{"role": "user", "content": "' + b"x" * (100 << 20) + b'"}]}'
    r = s.post("/v1/chat/completions", body)
    check(r.status == 413 and r.error.get("code") == "body_too_large", r)
    r = s.raw(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" +
              b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n")
    check(r.startswith(b"HTTP/1.1 413 "), "chunked:", r[:300])
    r = s.raw(head_of("/tokenize", b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 999999999"))
    check(r.startswith(b"HTTP/1.1 413 "), "it asked before it sent:", r[:300])
    check(s.metric("http_too_large_total") == 3, "counted:", s.metric("http_too_large_total"))
    # headers
    few = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    check(s.raw(few + b"\r\n").startswith(b"HTTP/1.1 200 "), "few headers")
    r = s.raw(few + b"".join(b"X-%d: y\r\n" % i for i in range(300)) + b"\r\n")
    check(r.startswith(b"HTTP/1.1 431 ") and b'"header_too_large"' in r, "many headers:", r[:300])
    r = s.raw(few + b"X-Long: " + b"y" * 60000 + b"\r\n\r\n")
    check(r.startswith(b"HTTP/1.1 431 "), "a long header:", r[:300])
    r = s.raw(few + b"X-Long: " + b"y" * 10000000 + b"\r\n\r\n")
    check(r == b"" or re.match(rb"HTTP/1\.1 4\d\d ", r), "a very long header:", r[:300])
    for junk in (b"\0" * 1000, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n",
                 b"POST /tokenize HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                 b"POST /tokenize HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                 b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
        with s.socket() as c:
            c.sendall(junk)
            c.shutdown(socket.SHUT_WR)
            r = read_all(c)
        check(b" 200 " not in r, junk, "->", r[:200])
    check(s.get("/health").status == 200, "alive after junk")


# --- keys, pages of others ----------------------------------------------------------------------------------------------

def keys(folder, tiny):
    file = folder.file("keys", "# comment\n\nthird-key\r\n")
    with Server(tiny, "--api-key", "first-key", "--api-key", "second,key", "--api-key-file", file, "--no-log") as s:
        for path in ("/v1/models", "/metrics", "/props", "/plan", "/nope"):
            r = s.get(path)
            check(r.status == 401 and r.error.get("code") == "invalid_api_key" and
                  r.headers["www-authenticate"].startswith("Bearer"), path, r, r.headers)
        check(s.get("/health").status == 200, "/health is open")
        check(s.request("OPTIONS", "/v1/models").status == 204, "OPTIONS")
        for key in ("first-key", "second,key", "third-key"):
            check(s.get("/v1/models", headers={"Authorization": "Bearer " + key}).status == 200, key)
        check(s.get("/v1/models", headers={"X-Api-Key": "first-key"}).status == 200, "X-Api-Key")
        for wrong in ("first-ke", "first-key1", "first-kez", "", "FIRST-KEY", "second", "first-keyfirst-key"):
            r = s.get("/v1/models", headers={"Authorization": "Bearer " + wrong})
            check(r.status == 401 and r.error, wrong, r)
        check(s.get("/v1/models", headers={"Authorization": "Basic first-key"}).status == 401, "Basic")
        r = s.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1})
        check(r.status == 401, r)
        r = s.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1},
                   headers={"Authorization": "Bearer first-key"})
        check(r.status == 200, r)


def origins(tiny):
    here = {"Origin": "https://a.example"}
    with Server(tiny, "--cors-origin", "https://a.example", "--cors-origin", "https://b.example", "--no-log") as s:
        r = s.get("/health", headers=here)
        check(r.headers.get("access-control-allow-origin") == "https://a.example" and r.headers["vary"] == "Origin",
              r.headers)
        r = s.get("/health", headers={"Origin": "https://c.example"})
        check("access-control-allow-origin" not in r.headers, r.headers)
        r = s.request("OPTIONS", "/v1/chat/completions", headers={
            **here, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"})
        check(r.status == 204 and "POST" in r.headers["access-control-allow-methods"] and
              "Authorization" in r.headers["access-control-allow-headers"], r.headers)
        r = s.post("/v1/chat/completions", "{", headers=here)
        check(r.status == 400 and r.headers.get("access-control-allow-origin") == "https://a.example", r.headers)
    with Server(tiny, "--cors-origin", "*", "--no-log") as s:
        check(s.get("/health", headers=here).headers.get("access-control-allow-origin") == "*", "*")
    with Server(tiny, "--no-log", "--no-page") as s:
        r = s.get("/health", headers=here)
        check(not any(h.startswith("access-control") for h in r.headers), "CORS unasked for:", r.headers)
        check(s.get("/").status == 404 and s.get("/page/app.js").status == 404, "--no-page")
        # a page elsewhere whose name points here
        for host, status in (("evil.example", 421), ("evil.example:80", 421), ("localhost:1", 200), ("127.0.0.1", 200),
                             ("[::1]:80", 200)):
            r = s.get("/health", headers={"Host": host})
            check(r.status == status and (status == 200 or r.error), host, r)


# --- crowds, and those who are slow or go away -----------------------------------------------------------------------------

def background(f, *args, **kw):
    got = []
    t = threading.Thread(target=lambda: got.append(f(*args, **kw)))
    t.start()
    return t, got


def send_long(s, stream=False, **fields):
    c = s.socket()
    c.sendall(head_of("/v1/chat/completions", json.dumps({"messages": MESSAGES, "stream": stream, **LONG,
                                                          **fields}).encode()))
    return c


def crowds(tiny):
    with Server(tiny, *SLOW, "-np", 1, "--queue", 1, "--no-log") as s:
        a = send_long(s)
        s.until("slots_busy", 1)
        t, got = background(s.chat, max_tokens=2)
        s.until("queue_length", 1)
        r = s.chat(max_tokens=2)
        check(r.status == 429 and r.error.get("code") == "queue_full" and int(r.headers["retry-after"]) > 0, r, r.headers)
        check(s.metric("http_queue_full_total") == 1, "counted")
        # who goes away, without a stream, gives its slot to the next
        start = time.time()
        a.close()
        t.join(20)
        check(got and got[0].status == 200 and time.time() - start < 5, "the one that waited:", got and str(got[0]))
        s.until("slots_busy", 0)
        s.until("http_requests_in_flight", 1)  # the one that asks
        # the same with a stream, after its first words
        a = send_long(s, stream=True)
        check(b"200 OK" in a.recv(2000), "a stream begins")
        s.until("slots_busy", 1)
        start = time.time()
        a.close()
        check(s.chat(max_tokens=2).status == 200 and time.time() - start < 5, "the next one's turn")
        # and one that goes away while it waits
        a = send_long(s)
        s.until("slots_busy", 1)
        b = send_long(s)
        s.until("queue_length", 1)
        b.close()
        s.until("queue_length", 0)
        a.close()
        s.until("slots_busy", 0)
        check(s.metric("generations_cancelled_total") == 4, s.metric("generations_cancelled_total"))


def many(tiny):
    with Server(tiny, "--no-log") as s:
        want = text_of(s.chat(max_tokens=30, temperature=0, ignore_eos=True))
        got = []

        def ask(i):
            for _ in range(4):
                if i % 2:
                    events = s.stream("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 30, "temperature": 0,
                                                               "ignore_eos": True})
                    got.append("".join(e["choices"][0]["delta"].get("content", "") for e in events))
                else:
                    got.append(text_of(s.chat(max_tokens=30, temperature=0, ignore_eos=True)))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check(len(got) == 48 and all(len(g) > 5 for g in got), "answers of a crowd:", len(got), set(got), want)


def slow_senders(tiny):
    with Server(tiny, "--timeout-read", 1, "--no-log") as s:
        def drip(data, step):
            """Seconds until the server has had enough of one byte every now and then."""
            with s.socket() as c:
                start, said = time.time(), b""
                try:
                    for i in range(0, len(data), 1):
                        c.sendall(data[i:i + 1])
                        time.sleep(step)
                        c.setblocking(False)
                        try:
                            said += c.recv(4096) or b"\0"
                        except BlockingIOError:
                            pass
                        c.setblocking(True)
                        if said:
                            break
                except OSError:
                    pass
                return time.time() - start, said

        whole = head_of("/tokenize", b'{"content": "hello"}')
        took, said = drip(whole, 0.05)
        check(0.9 < took < 3 and b"408" in said and b'"request_timeout"' in said, "a slow head:", took, said)
        with s.socket() as c:  # a fast head, a slow body
            c.sendall(head_of("/tokenize", b"x" * 100)[:-100])
            start, said = time.time(), b""
            while not said and time.time() - start < 10:
                try:
                    c.sendall(b"x")
                    c.settimeout(0.1)
                    said = c.recv(4096) or b"\0"
                except TimeoutError:
                    pass
                except OSError:
                    break
            check(0.9 < time.time() - start < 3 and b"408" in said, "a slow body:", time.time() - start, said)
        with s.socket() as c:  # nothing at all
            start = time.time()
            read_all(c)
            check(time.time() - start < 3, "a connection that says nothing")
        with s.socket() as c:  # a second request that drips
            c.sendall(whole)
            check(b"200 OK" in c.recv(4096), "the first")
            time.sleep(0.3)
            start, said = time.time(), b""
            try:
                for i in range(60):
                    c.sendall(whole[i:i + 1])
                    time.sleep(0.05)
            except OSError:
                pass
            said = read_all(c)
            check(time.time() - start < 5, "a slow second request:", time.time() - start, said)
        with s.socket() as c:  # two in a row, with a rest between them, are no crime
            for _ in range(3):
                c.sendall(whole)
                check(b"200 OK" in c.recv(4096), "in a row")
                time.sleep(0.5)
        check(s.metric("http_slow_senders_total") >= 3, s.metric("http_slow_senders_total"))
        check(s.get("/health").status == 200, "alive")


def slow_readers(tiny):
    with Server(tiny, "--timeout-write", 1, "-np", 2, "-c", 4096, "--no-log") as s:
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.settimeout(60)
        c.connect(("127.0.0.1", s.port))
        body = json.dumps({"messages": MESSAGES, "stream": True, "logprobs": True, "top_logprobs": 20, **LONG})
        c.sendall(head_of("/v1/chat/completions", body.encode()))
        s.until("slots_busy", 2)
        start = time.time()
        s.until("slots_busy", 0, 30)
        s.until("http_slow_readers_total", 1)
        took = time.time() - start
        check(took < 20, "a reader that reads nothing held its slots for", took)
        c.close()
        # a slow model is no slow reader: nothing waits to be read
        check(s.chat(max_tokens=3).status == 200, "alive")


# --- signals, logs, the cache ------------------------------------------------------------------------------------------------

def drains(tiny):
    with Server(tiny, *SLOW, "-np", 2, "--no-log") as s:
        t, got = background(s.stream, "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1800,
                                                               "ignore_eos": True, "temperature": 0})
        s.until("slots_busy", 1)
        s.p.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        r = s.chat(max_tokens=1)
        check(r.status == 503 and r.error.get("code") == "shutting_down" and "retry-after" in r.headers, r)
        check(s.get("/health").status == 503, "/health")
        t.join()
        check(got and sum(bool(e["choices"][0]["delta"].get("content")) for e in got[0]) > 100 and
              got[0][-1]["choices"][0]["finish_reason"] == "length", "the one that ran is answered")
        s.wait()
        check(any("shutting down" in l for l in s.lines), s.lines)
    with Server(tiny, *SLOW, "--drain", 0.5, "--no-log") as s:  # not for ever
        whole, stream = background(s.chat, **LONG), send_long(s, stream=True)
        s.until("slots_busy", 4)
        start = time.time()
        s.p.send_signal(signal.SIGINT)
        s.wait()
        check(time.time() - start < 10, "a drain takes", time.time() - start)
        whole[0].join()
        check(whole[1] and whole[1][0].status == 503 and whole[1][0].error, "cut off:", whole[1] and str(whole[1][0]))
        check(b'data: {"error":' in read_all(stream), "a stream that is cut off says so")
    with Server(tiny, *SLOW, "--no-log", status=143) as s:  # a second one doesn't wait
        c = send_long(s)
        s.until("slots_busy", 4)
        s.p.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        check(s.p.poll() is None, "it drains")
        start = time.time()
        s.p.send_signal(signal.SIGTERM)
        s.wait()
        check(time.time() - start < 3, "a second signal takes", time.time() - start)
        c.close()


def logs(folder, tiny):
    path, moved = folder.name("access.log"), folder.name("access.log.1")
    secret = "a secret question"
    with Server(tiny, "--log-file", path, "--api-key", "the-key") as s:
        auth = {"Authorization": "Bearer the-key"}
        s.post("/v1/chat/completions", {"messages": [{"role": "user", "content": secret}], "max_tokens": 3,
                                        "ignore_eos": True}, headers=auth)
        s.get("/nope?key=the-key")
        time.sleep(0.3)  # a line is written behind the answer
        os.rename(path, moved)
        s.get("/health")
        time.sleep(0.3)
        s.p.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        s.get("/v1/health")
        check(s.p.poll() is None, "SIGHUP ends it")
    with open(moved) as f:
        old = [json.loads(l) for l in f]
    with open(path) as f:
        new = [json.loads(l) for l in f]
    check([l["path"] for l in old] == ["/v1/chat/completions", "/nope", "/health"], old)
    check([l["path"] for l in new] == ["/v1/health"], new)
    a = old[0]
    check(a["status"] == 200 and a["method"] == "POST" and a["key"] == 1 and a["client"] == "127.0.0.1" and
          a["prompt_tokens"] > 3 and a["completion_tokens"] == 3 and a["end"] == "length" and a["ms"] > 0, a)
    check(old[1]["status"] == 401 and old[1]["code"] == "invalid_api_key", old[1])
    with open(moved) as f:
        text = f.read()
    check(secret not in text and "the-key" not in text, "a prompt or a key in the log:", text)
    check(not any(secret in l for l in s.lines), "a prompt on stderr")
    check(os.stat(path).st_mode & 0o007 == 0, "the log can be read by all")
    with Server(tiny, "--log-prompts") as s:
        s.chat(secret, max_tokens=1)
    lines = [json.loads(l) for l in s.lines if l.startswith("{")]
    check(len(lines) == 1 and secret in lines[0]["prompt"], s.lines)


def kept(folder, tiny):
    d = folder.name("kv")
    prompt = {"prompt": "word " * 300, "max_tokens": 1, "temperature": 0, "logprobs": 5}
    with Server(tiny, "--kv-save", d, "--no-log") as s:
        a = s.post("/v1/completions", prompt).json
        check(a["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, a["usage"])
        b = s.post("/v1/completions", prompt).json
        check(b["usage"]["prompt_tokens_details"]["cached_tokens"] >= 64, b["usage"])
    if any("not written" in l for l in s.lines):
        print("serve: the engine can't keep its cache yet")
        return
    check(any(l.startswith("saved ") for l in s.lines), s.lines)
    names = os.listdir(d)
    check(len(names) == 1 and names[0].endswith(".kv"), names)
    check(os.stat(d).st_mode & 0o077 == 0, "others may look into", d)
    with Server(tiny, "--kv-save", d, "--no-log") as s:
        check(any(l.startswith("restored ") for l in s.lines), s.lines)
        c = s.post("/v1/completions", prompt).json
        check(c["usage"]["prompt_tokens_details"]["cached_tokens"] >= 64 and
              c["choices"][0]["logprobs"]["tokens"] == a["choices"][0]["logprobs"]["tokens"], c["usage"])
    path = os.path.join(d, names[0])
    with open(path, "r+b") as f:
        f.seek(os.path.getsize(path) // 2)
        f.write(b"\x55" * 64)
    with Server(tiny, "--kv-save", d, "--no-log") as s:
        check(any(l.startswith("warning: ") and "begins empty" in l for l in s.lines), s.lines)
        c = s.post("/v1/completions", prompt).json
        check(c["usage"]["prompt_tokens_details"]["cached_tokens"] == 0 and
              c["choices"][0]["text"] == a["choices"][0]["text"], c["usage"])


def usage(folder, tiny):
    r = good("serve", "--help")
    for word in ("--api-key", "--parallel", "--queue", "--cors-origin", "--kv-save", "--timeout-read"):
        check(word in r.out, "--help should name", word)
    bad(("serve",), "serve needs -m FILE")
    bad(("serve", "-m", tiny, "--host", "0.0.0.0"), "--host 0.0.0.0", "--api-key", "--no-auth")
    bad(("serve", "-m", tiny, "--host", "no.such.host.invalid"), "no such address")
    bad(("serve", "-m", tiny, "--no-auth", "--api-key", "x"), "exclude each other")
    bad(("serve", "-m", tiny, "--api-key", ""), "empty")
    bad(("serve", "-m", tiny, "--api-key-file", "/nonexistent"), "/nonexistent")
    bad(("serve", "-m", tiny, "--api-key-file", folder.file("none", "# nothing\n")), "holds no key")
    bad(("serve", "-m", tiny, "--log-file", "/nonexistent/x"), "/nonexistent/x")
    bad(("serve", "-m", tiny, "--chat-template", "{{ x", "--port", 0, "--no-log"), "the chat template, line 1")
    bad(("serve", "-m", tiny, "--kv-save", "/nonexistent/x/y"), "--kv-save")
    bad(("serve", "-m", "/nonexistent"), "/nonexistent")
    with Server(tiny, "--host", "0.0.0.0", "--no-auth", "--no-log") as s:
        check(s.get("/health").status == 200, "--no-auth")
        bad(("serve", "-m", tiny, "--port", s.port), "cannot be listened at")
    with open(tiny, "rb") as f:
        bare = folder.file("bare.gguf", f.read().replace(b"tokenizer.chat_template", b"tokenizer.chat_templat0"))
    with Server(bare, "--no-log") as s:
        r = s.chat()
        check(r.status == 400 and r.error.get("code") == "no_chat_template" and "chat template" in r.error["message"], r)
        check(s.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).status == 200, "a completion without template")
        check(s.get("/v1/models").json["data"][0]["id"] == "Random weights in the shape of tiny Llama", "its own name")
    shows = "{% for m in messages %}{{ m.content }}{% endfor %}{{ mood|d('') }}{{ reasoning_effort|d('') }}"
    with Server(tiny, "--chat-template", shows, "--no-log") as s:
        n = [s.chat(max_tokens=1, **f).json["usage"]["prompt_tokens"]
             for f in ({}, {"chat_template_kwargs": {"mood": "gay and merry"}}, {"reasoning_effort": "high"},
                       {"chat_template_kwargs": {"messages": []}})]
        check(n[1] > n[0] and n[2] > n[0] and n[3] == n[0], "variables of the template:", n)
    refuses = "{{ raise_exception('Not today.') }}"
    with Server(tiny, "--chat-template", refuses, "--no-log") as s:
        r = s.chat()
        check(r.status == 400 and "Not today." in r.error.get("message", ""), r)


with Folder() as f:
    small = f.model("tiny.gguf")
    usage(f, small)
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
        paths(server)
    with Server(small, "--max-body", 100 << 10, "--no-log") as server:
        large(server)
    tools(f, small)
    keys(f, small)
    origins(small)
    crowds(small)
    many(small)
    slow_senders(small)
    slow_readers(small)
    drains(small)
    logs(f, small)
    kept(f, small)
done("serve")
