#!/usr/bin/env python3
"""Real clients against tessera serve: the packages openai and langchain-openai, as their users write it. Skipped (77)
where they aren't installed: python3 -m pip install openai langchain-openai."""
import asyncio
import json
import os
import sys
import typing

try:
    import openai
    import pydantic
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
except ImportError as e:
    print("clients: skipped:", e)
    sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli_tool import Folder, check, done  # noqa: E402
from serve_tool import HERMES, Server  # noqa: E402

KEY = "the-key"
ASK = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "celsius": {"type": "boolean"}},
    "required": ["city", "celsius"], "additionalProperties": False}}}]


class Person(pydantic.BaseModel):
    kind: typing.Literal["man", "woman"]
    grown: bool


@tool
def get_weather(city: typing.Literal["Paris", "Rome"], celsius: bool) -> str:
    """The weather somewhere."""
    return f"{city}, {celsius}"


def sync(c):
    check([m.id for m in c.models.list()] == ["tiny"] and c.models.retrieve("tiny").id == "tiny", "models")
    r = c.chat.completions.create(model="tiny", messages=ASK, max_tokens=8, temperature=0, n=2, logprobs=True,
                                  top_logprobs=2, extra_body={"ignore_eos": True})
    check(len(r.choices) == 2 and r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 16, r)
    check(r.choices[0].message.role == "assistant" and len(r.choices[0].logprobs.content) == 8, r)
    said = r.choices[0].message.content
    with c.chat.completions.create(model="tiny", messages=ASK, max_tokens=8, temperature=0, stream=True,
                                   stream_options={"include_usage": True}, extra_body={"ignore_eos": True}) as s:
        chunks = list(s)
    check("".join(x.choices[0].delta.content or "" for x in chunks if x.choices) == said, "a stream:", chunks[:3])
    check(chunks[-1].usage.completion_tokens == 8 and chunks[0].choices[0].delta.role == "assistant", chunks[-1])
    with c.chat.completions.create(model="tiny", messages=ASK, stream=True, max_tokens=9000,
                                   extra_body={"ignore_eos": True}) as s:  # stopped early
        for x in s:
            if x.choices[0].delta.content:
                break
    r = c.completions.create(model="tiny", prompt="Once", max_tokens=5, logprobs=2, extra_body={"ignore_eos": True})
    check(r.choices[0].text is not None and len(r.choices[0].logprobs.tokens) == 5, r)
    check(len(list(c.completions.create(model="tiny", prompt="Once", max_tokens=5, stream=True))) >= 1, "stream")
    r = c.embeddings.create(model="tiny", input=["a", "b"])  # asks for base64
    f = c.embeddings.create(model="tiny", input=["a", "b"], encoding_format="float")
    check(len(r.data) == 2 and len(r.data[0].embedding) == 256 and
          max(abs(x - y) for x, y in zip(r.data[0].embedding, f.data[0].embedding)) < 1e-4, "embeddings")


def errors(c, base):
    for what, kind, status in (
            (lambda: c.chat.completions.create(model="nope", messages=ASK), openai.NotFoundError, 404),
            (lambda: c.chat.completions.create(model="tiny", messages=[]), openai.BadRequestError, 400),
            (lambda: c.chat.completions.create(model="tiny", messages=ASK, n=-1), openai.BadRequestError, 400),
            (lambda: openai.OpenAI(base_url=base, api_key="wrong").models.list(), openai.AuthenticationError, 401)):
        try:
            what()
            check(False, "no error of the kind", kind)
        except kind as e:
            check(e.status_code == status and e.message and e.type, repr(e))
    try:
        c.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a " * 3000}])
        check(False, "a prompt that doesn't fit")
    except openai.BadRequestError as e:
        check(e.code == "context_length_exceeded" and e.param == "messages", repr(e))


def structured(c):
    r = c.chat.completions.parse(model="tiny", messages=ASK, response_format=Person, max_tokens=900)
    check(isinstance(r.choices[0].message.parsed, Person), r)
    r = c.chat.completions.create(model="tiny", messages=ASK, max_tokens=900, response_format={
        "type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": Person.model_json_schema()}})
    check(Person.model_validate_json(r.choices[0].message.content), r)
    with c.chat.completions.stream(model="tiny", messages=ASK, response_format=Person, max_tokens=900) as s:
        for _ in s:
            pass
        check(isinstance(s.get_final_completion().choices[0].message.parsed, Person), "a stream that is parsed")


def calls(c):
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        r = c.chat.completions.create(model="tiny", messages=ASK, tools=TOOLS, tool_choice=choice, max_tokens=900,
                                      parallel_tool_calls=False)
        m = r.choices[0].message
        check(r.choices[0].finish_reason == "tool_calls" and len(m.tool_calls) == 1, r)
        call = m.tool_calls[0]
        args = json.loads(call.function.arguments)
        check(call.function.name == "get_weather" and args["city"] in ("Paris", "Rome") and call.id, call)
        # the model's answer to what the function gave
        r = c.chat.completions.create(model="tiny", tools=TOOLS, max_tokens=3, messages=[
            *ASK, m, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}])
        check(r.choices[0].finish_reason in ("stop", "length"), r)
    with c.chat.completions.create(model="tiny", messages=ASK, tools=TOOLS, tool_choice="required", max_tokens=900,
                                   parallel_tool_calls=False, stream=True) as s:
        deltas = [d for x in s for d in x.choices[0].delta.tool_calls or []]
    check(deltas[0].function.name == "get_weather" and deltas[0].id and all(d.index == 0 for d in deltas), deltas)
    args = json.loads("".join(d.function.arguments or "" for d in deltas))
    check(args["city"] in ("Paris", "Rome"), args)


async def asynchronous(base):
    c = openai.AsyncOpenAI(base_url=base, api_key=KEY)
    ask = {"model": "tiny", "messages": ASK, "max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}}
    many = await asyncio.gather(*(c.chat.completions.create(**ask) for _ in range(12)))
    check(len(many) == 12 and all(r.choices[0].message.content for r in many), "many at once")

    async def streamed():
        said = ""
        async for x in await c.chat.completions.create(**ask, stream=True):
            said += x.choices[0].delta.content or ""
        return said

    texts = await asyncio.gather(*(streamed() for _ in range(6)))
    check(len(texts) == 6 and all(texts), texts)
    await c.close()


def langchain(base):
    llm = ChatOpenAI(base_url=base, api_key=KEY, model="tiny", max_tokens=30, temperature=0.5, stream_usage=True)
    ask = [SystemMessage("You are kind."), HumanMessage("Hello")]
    r = llm.invoke(ask)
    check(isinstance(r, AIMessage) and r.usage_metadata["output_tokens"] > 0, r)
    parts = list(llm.stream(ask))
    check(len(parts) >= 2 and any(p.usage_metadata for p in parts), parts[-2:])
    check(len(llm.batch([ask, ask, ask])) == 3, "a batch")
    check(isinstance(asyncio.run(llm.ainvoke(ask)), AIMessage), "asynchronous")
    wide = ChatOpenAI(base_url=base, api_key=KEY, model="tiny", max_tokens=900)
    for method in ("json_schema", "function_calling"):
        v = wide.with_structured_output(Person, method=method).invoke(ask)
        check(isinstance(v, Person), method, v)
    bound = wide.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    r = bound.invoke(ask)
    check(len(r.tool_calls) == 1 and r.tool_calls[0]["name"] == "get_weather", r)
    answer = get_weather.invoke(r.tool_calls[0])
    check(isinstance(answer, ToolMessage), answer)
    check(isinstance(wide.bind_tools([get_weather]).invoke([*ask, r, answer]), AIMessage), "after the call")
    whole = None
    for part in bound.stream(ask):
        whole = part if whole is None else whole + part
    check(len(whole.tool_calls) == 1 and whole.tool_calls[0]["args"]["city"] in ("Paris", "Rome"), whole)
    e = OpenAIEmbeddings(base_url=base, api_key=KEY, model="tiny", check_embedding_ctx_length=False)
    check(len(e.embed_documents(["a", "b"])) == 2 and len(e.embed_query("a")) == 256, "embeddings")


with Folder() as f:
    model = f.model("tiny.gguf")
    template = f.file("hermes.jinja", HERMES)
    with Server(model, "-a", "tiny", "--api-key", KEY, "-np", 4, "-c", 8192, "--chat-template-file", template,
                "--no-log") as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
        sync(client)
        errors(client, url)
        structured(client)
        calls(client)
        asyncio.run(asynchronous(url))
        langchain(url)
done("clients")
